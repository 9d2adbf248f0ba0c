//! Pages that the program writes, in a real browser: nothing is loaded, nothing complains,
//! and everything can be read on a phone, on a desk, in the dark and on paper.

use std::fs;
use std::path::Path;

use eyas_tests::browser::{Browser, VIEWS};

/// Words about everything that is wrong with a page, by view.
fn faults_of(browser: &mut Browser, page: &Path) -> (Vec<String>, usize) {
    let mut faults = browser.open(page);
    let mut n_plots = usize::MAX;
    for view in VIEWS {
        let found = browser.inspect(view);
        assert!(found.n_texts > 0, "{}: no text at all", page.display());
        n_plots = n_plots.min(found.plots.len());
        for fault in found.faults {
            faults.push(format!("{view}: {}: {}", fault.kind, fault.what));
        }
    }
    (faults, n_plots)
}

/// A page around `body` with nothing wrong in it.
fn page_of(body: &str) -> String {
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>t</title>\
         <style>svg {{ width: 100%; max-width: 320px }} text {{ fill: CanvasText }}</style></head>\
         <body><h1>A page</h1>{body}</body></html>"
    )
}

/// A drawing of 320 x 100 units around `content`.
fn drawing_of(content: &str) -> String {
    page_of(&format!(
        "<svg viewBox=\"0 0 320 100\" role=\"img\" aria-label=\"a plot\">\
         <path d=\"M10 90L300 10\" stroke=\"gray\"/>{content}</svg>"
    ))
}

#[test]
fn what_is_wrong_with_a_page_is_found() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let text = |attributes: &str| format!("<p style=\"{attributes}\">Some words</p>");
    let label = |attributes: &str| format!("<text {attributes}>Some words</text>");
    let good = "<text x=\"40\" y=\"30\" font-size=\"14\">low</text>\
                <text x=\"200\" y=\"30\" font-size=\"14\">high</text>";
    let cases = [
        ("", page_of(&text(""))),
        ("", drawing_of(good)),
        ("console: ", page_of("<script>console.error('no')</script>")),
        ("console: ", page_of("<script>console.warn('no')</script>")),
        (
            "request: ",
            page_of("<img alt=\"a\" src=\"http://127.0.0.1:9/a.png\">"),
        ),
        ("request: ", page_of("<img alt=\"a\" src=\"beside.png\">")),
        ("tiny: ", page_of(&text("font-size: 10px"))),
        (
            "tiny: ",
            drawing_of(&label("x=\"9\" y=\"50\" font-size=\"8\"")),
        ),
        (
            "overflow: ",
            page_of(&text("width: 2000px; background: Canvas")),
        ),
        (
            "overflow: ",
            page_of("<p>W</p>").replace("width=device-width", "width=980"),
        ),
        ("contrast: ", page_of(&text("color: #888"))),
        ("1440-dark: contrast: ", page_of(&text("color: #222"))),
        (
            "contrast: ",
            page_of(&text("color: white; background: #8ac")),
        ),
        ("contrast: ", page_of(&text("opacity: 0.4"))),
        (
            "contrast: ",
            drawing_of(&format!(
                "<rect width=\"320\" height=\"60\" fill=\"gray\"/>{}",
                label("x=\"9\" y=\"50\" font-size=\"14\" style=\"fill: #999\"")
            )),
        ),
        (
            "overlap: ",
            drawing_of(&(good.to_owned() + &label("x=\"45\" y=\"35\" font-size=\"14\""))),
        ),
        (
            "clipped: ",
            drawing_of(&label("x=\"300\" y=\"50\" font-size=\"14\"")),
        ),
        (
            "clipped: ",
            drawing_of("<circle cx=\"318\" cy=\"50\" r=\"9\"/>"),
        ),
        (
            "clipped: ",
            page_of(&text("width: 30px; overflow: hidden; white-space: nowrap")),
        ),
        (
            "print: clipped: ",
            page_of(&text("width: 30px; overflow: auto; white-space: nowrap")),
        ),
        (
            "clipped: ",
            page_of(&text("position: relative; left: -40px")),
        ),
        (
            "covered: ",
            page_of(
                "<p>Some words</p><p style=\"margin-top: -3em; position: relative; background: red\">.<br>.</p>",
            ),
        ),
        (
            "empty: ",
            page_of("<svg width=\"200\" height=\"90\"><title>t</title></svg>"),
        ),
        ("unnamed: ", drawing_of(good).replace("aria-label", "class")),
        ("unnamed: ", page_of("<img src=\"data:,\">")),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (case_idx, (expected, html)) in cases.iter().enumerate() {
        let path = folder.path().join(format!("{case_idx}.html"));
        fs::write(&path, html).unwrap();
        let (faults, _) = faults_of(&mut browser, &path);
        let is_as_expected = if expected.is_empty() {
            faults.is_empty()
        } else {
            faults.iter().any(|fault| fault.contains(expected))
        };
        assert!(
            is_as_expected,
            "expected `{expected}` of {html}\nfound {faults:#?}"
        );
    }
}
