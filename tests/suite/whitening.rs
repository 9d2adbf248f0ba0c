//! Pairs of images that show the same, from a set in the published layout of SfM-120k: tuples
//! of listed positives, and whitenings of teachers and of students.

use std::fs;
use std::sync::OnceLock;

use eyas_tests::{run, run_ok};
use serde_json::Value;

use super::end_to_end::{World, student_recipe, world};

/// A list in a pickle's protocol 0.
fn list(items: impl Iterator<Item = String>) -> String {
    let items: String = items.map(|item| format!("{item}\na")).collect();
    format!("(l{items}")
}

/// A dictionary of image names and pairs, and of clusters where the set has them.
fn part(cids: &[String], clusters: Option<&[usize]>, pairs: &[(usize, usize)]) -> String {
    let numbers = |numbers: Vec<usize>| list(numbers.into_iter().map(|n| format!("I{n}")));
    let cids = list(cids.iter().map(|cid| format!("S'{cid}'")));
    let clusters = clusters.map_or(String::new(), |clusters| {
        format!("S'cluster'\n{}s", numbers(clusters.to_vec()))
    });
    let queries = numbers(pairs.iter().map(|pair| pair.0).collect());
    let matches = numbers(pairs.iter().map(|pair| pair.1).collect());
    format!("(dS'cids'\n{cids}s{clusters}S'qidxs'\n{queries}sS'pidxs'\n{matches}s")
}

/// The rendered shelves as if they were SfM-120k: 36 images of 6 models to train with, 12 to
/// validate. Each image of the first three models is listed with the next; those of the
/// others stand in no pair.
fn sfm() -> &'static str {
    static SFM: OnceLock<String> = OnceLock::new();
    SFM.get_or_init(|| {
        let root = world().path("sfm");
        let mut cids: [Vec<String>; 2] = [Vec::new(), Vec::new()];
        let mut clusters: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
        let mut labels: Vec<_> = { fs::read_dir(world().path("shelves/train")).unwrap() }
            .map(|entry| entry.unwrap().path())
            .collect();
        labels.sort();
        for (label_idx, label) in labels.iter().enumerate() {
            let files = fs::read_dir(label).unwrap();
            let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
            files.sort();
            for (at, file) in files.iter().enumerate() {
                let cid = format!("{label_idx:02}aabb{at:02}");
                let last = |from: usize| &cid[cid.len() - from..cid.len() - from + 2];
                let folder = root.join("ims").join(last(2)).join(last(4)).join(last(6));
                fs::create_dir_all(&folder).unwrap();
                fs::copy(file, folder.join(&cid)).unwrap();
                let of = usize::from(at >= 6);
                cids[of].push(cid);
                clusters[of].push(label_idx);
            }
        }
        let pairs: Vec<_> = (0..18).map(|i| (i, i / 6 * 6 + (i + 1) % 6)).collect();
        let train = part(&cids[0], Some(&clusters[0]), &pairs);
        let val = part(&cids[1], Some(&clusters[1]), &[(0, 1)]);
        let tuples = format!("(dS'train'\n{train}sS'val'\n{val}s.");
        fs::write(root.join("retrieval-SfM-120k.pkl"), tuples).unwrap();
        let all = cids.concat();
        // Also each image of a label with the next.
        let pairs: Vec<_> = (0..36).map(|i| (i, i / 6 * 6 + (i + 1) % 6)).collect();
        let whiten = format!("{}.", part(&all, None, &pairs));
        fs::write(root.join("retrieval-SfM-120k-whiten.pkl"), whiten).unwrap();
        root.display().to_string()
    })
}

fn words_on_sfm(world: &World, recipe: &str, folder: &str) -> Vec<String> {
    let mut words = world.train_words_of(recipe, folder);
    let data = words.iter().position(|word| word == "--data").unwrap();
    words[data + 1] = sfm().to_owned();
    words
}

fn short_recipe() -> String {
    student_recipe()
        .replace("epochs = 8", "epochs = 2")
        .replace("validation_fraction = 0.2", "validation_fraction = 0.0")
}

fn tuple_recipe(positives: &str) -> String {
    let recipe = short_recipe()
        .replace(
            r#"kind = "shuffled", images = 8, views = 2"#,
            &format!(
                r#"kind = "tuples", tuples = 3, tuples_per_epoch = 18, student_sees = "tuples", positives = "{positives}", negatives = 3, mining = {{ hard = {{ pool = 20, embedded_by = "student" }} }}, views = 1"#
            ),
        )
        .replace(
            r#"{ kind = "relaxed-contrastive", weight = 1.0, sigma = 1.0, delta = 1.0 }, { kind = "regression", weight = 1.0 }"#,
            &format!(
                r#"{{ kind = "tuple-contrastive", weight = 1.0, margin = 0.7, tuples = {{ references = "batch", positives = "{positives}", mining = "hard", negatives = 3, own_teacher = true, reducer = "sum" }} }}"#
            ),
        );
    assert!(recipe.contains("own_teacher") && recipe.contains("tuples_per_epoch"));
    recipe
}

/// Query and positive of each tuple of the epoch that a run ended with.
fn last_pairs(run: &str) -> Vec<(usize, usize)> {
    let bytes = fs::read(world().path(run).join("checkpoint.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text: Value = serde_json::from_slice(&bytes[8..][..header]).unwrap();
    let offsets: [usize; 2] =
        serde_json::from_value(text["tuples"]["data_offsets"].clone()).unwrap();
    let data = &bytes[8 + header..][offsets[0]..offsets[1]];
    let values = data
        .as_chunks::<4>()
        .0
        .iter()
        .copied()
        .map(f32::from_le_bytes);
    let images: Vec<usize> = values.map(|x| x as usize).collect();
    images.chunks(5).map(|tuple| (tuple[0], tuple[1])).collect()
}

#[test]
fn listed_positives_are_the_pairs_of_the_published_file() {
    let world = world();
    fs::write(world.path("listed.toml"), tuple_recipe("listed")).unwrap();
    run_ok("eyas", words_on_sfm(world, "listed.toml", "listed"));
    // As many tuples an epoch as pairs: all of them, and nothing else.
    let mut found = last_pairs("listed");
    found.sort_unstable();
    let listed: Vec<_> = (0..18).map(|i| (i, i / 6 * 6 + (i + 1) % 6)).collect();
    assert_eq!(found, listed);
    // By labels, images that stand in no pair are queries too.
    fs::write(world.path("by-label.toml"), tuple_recipe("label")).unwrap();
    run_ok("eyas", words_on_sfm(world, "by-label.toml", "by-label"));
    assert!(last_pairs("by-label").iter().any(|(query, _)| *query >= 18));

    let said = run(
        "eyas",
        world.train_words_of("listed.toml", "listed-elsewhere"),
    );
    assert_eq!(said.code, Some(2), "{said:?}");
    let wanted = "lists none for its split `train`";
    assert!(said.err.contains(wanted), "{}", said.err);
}

fn whitened_recipe(pairs: &str) -> String {
    let recipe = short_recipe().replace(
        r#"map = { kind = "ridge", penalty = 0.1 }"#,
        &format!(r#"map = {{ kind = "whitening", pairs = "{pairs}" }}"#),
    );
    assert!(recipe.contains("whitening"));
    recipe
}

#[test]
fn a_whitened_student_searches_its_own_gallery_and_is_refused_the_teachers() {
    let world = world();
    fs::write(world.path("whitened.toml"), whitened_recipe("label")).unwrap();
    let said = run_ok("eyas", world.train_words_of("whitened.toml", "whitened"));
    assert!(
        said.contains("space    of its own after whitening"),
        "{said}"
    );
    let bundles = world.at("whitened-bundles");
    run_ok(
        "eyas",
        [
            "export",
            &world.at("whitened"),
            "--name",
            "w",
            "--out",
            &bundles,
        ],
    );
    let bundle = world.at("whitened-bundles/w-f32.bundle");
    let data = world.at("shelves");
    let words = [
        "evaluate",
        "--bundle",
        &bundle,
        "--manifest",
        &data,
        "--json",
    ];
    let said = run_ok("eyas", [&words[..], &["--symmetric"]].concat());
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["n_faults"], 0, "{said}");
    assert_eq!(said["gallery_embedded_by"], "student w", "{said}");
    let teacher = run_ok(
        "eyas",
        ["teacher", "info", &world.at("small.teacher"), "--json"],
    );
    let teacher: Value = serde_json::from_str(&teacher).unwrap();
    assert_ne!(said["space_id"], teacher["space_id"], "{said}");
    let gallery = world.at("small.gallery");
    let said = run("eyas", [&words[..], &["--gallery", &gallery]].concat());
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("different teachers"), "{}", said.err);

    fs::write(
        world.path("whitened-listed.toml"),
        whitened_recipe("listed"),
    )
    .unwrap();
    run_ok(
        "eyas",
        words_on_sfm(world, "whitened-listed.toml", "whitened-listed"),
    );
}

#[test]
fn a_teacher_is_whitened_by_the_pairs_of_the_published_file() {
    let world = world();
    let [sfm, out] = [sfm().to_owned(), world.at("pairs.teacher")];
    let whiten = format!("{sfm}/retrieval-SfM-120k-whiten.pkl");
    let (teacher, data) = (world.at("small.teacher"), world.at("shelves"));
    let words = [
        "teacher", "import", &teacher, "--data", &data, "--dim", "8", "--out", &out,
    ];
    run_ok(
        "eyas",
        [&words[..], &["--whitening-pairs", &whiten]].concat(),
    );
    let said = run_ok("eyas", ["teacher", "info", &out, "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["whitening"]["pairs"], 36, "{said}");
    assert_eq!(said["dim"], 8, "{said}");

    let words = [
        &words[..],
        &["--whitening-pairs", &whiten, "--whiten", "0.5"],
    ]
    .concat();
    assert_eq!(run("eyas", words).code, Some(2));
}

/// The projection is fitted on different images; labels are those of the first copy.
#[test]
fn a_whitening_is_learned_from_labels_of_data_with_copies() {
    let world = world();
    let folder = world.path("copies/train");
    for entry in fs::read_dir(world.path("shelves/train")).unwrap() {
        let label = entry.unwrap().path();
        let to = folder.join(label.file_name().unwrap());
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(&label).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
            fs::copy(
                &file,
                to.join(format!("copy-{}", file.file_name().unwrap().display())),
            )
            .unwrap();
        }
    }
    let (teacher, data, out) = (
        world.at("small.teacher"),
        world.at("copies"),
        world.at("copies.teacher"),
    );
    let words = [
        "teacher", "import", &teacher, "--data", &data, "--dim", "8", "--out", &out,
    ];
    run_ok("eyas", [&words[..], &["--learned-whitening"]].concat());
}
