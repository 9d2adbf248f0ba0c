//! Tells the linker where the host's programs and tests find libtorch at run time, so that plain
//! `cargo run` and `cargo test` work from any target folder. Where libtorch lies is decided by
//! `host/libtorch.py` (`make setup`) or by the user's `LIBTORCH`; the rules of reading the variables
//! are those of `torch-sys`, which compiles against the same folder.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prints the folder of python's torch package without importing it.
const PYTORCH_FOLDER: &str =
    "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    if let Err(message) = emit_run_time_search_path() {
        println!("cargo::error={message}");
    }
}

fn emit_run_time_search_path() -> Result<(), String> {
    let library = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => "libtorch_cpu.so",
        Ok("macos") => "libtorch_cpu.dylib",
        _ => return Ok(()),
    };
    let Some(lib_dir) = libtorch_lib_dir()? else {
        return Ok(());
    };
    // Runs this script again when the library disappears or another one takes its place.
    println!(
        "cargo::rerun-if-changed={}",
        lib_dir.join(library).display()
    );
    if !lib_dir.join(library).exists() {
        return Err(format!(
            "no libtorch: `{}` holds no {library}. Run `make setup` in the checkout, set LIBTORCH \
             to a libtorch 2.11, or build without it (`--no-default-features`)",
            lib_dir.display()
        ));
    }
    // First the path as it was given: through the link `.libtorch` it follows a later `make setup`.
    // Then where it leads today: that still stands when the checkout is gone.
    add_search_path(&lib_dir);
    match lib_dir.canonicalize() {
        Ok(resolved) if resolved != lib_dir => add_search_path(&resolved),
        _ => {}
    }
    Ok(())
}

fn add_search_path(dir: &Path) {
    // One word per `link-arg`: folders with blanks or commas pass unharmed.
    for word in ["-Xlinker", "-rpath", "-Xlinker"] {
        println!("cargo::rustc-link-arg={word}");
    }
    println!("cargo::rustc-link-arg={}", dir.display());
}

/// The folder of libtorch's libraries; `None` leaves it to the system's search path.
fn libtorch_lib_dir() -> Result<Option<PathBuf>, String> {
    for name in ["LIBTORCH_USE_PYTORCH", "LIBTORCH_LIB", "LIBTORCH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        return Ok(Some(pytorch_folder()?.join("lib")));
    }
    let root = env::var_os("LIBTORCH_LIB").or_else(|| env::var_os("LIBTORCH"));
    Ok(root.map(|root| PathBuf::from(root).join("lib")))
}

fn pytorch_folder() -> Result<PathBuf, String> {
    let python = if env::var_os("VIRTUAL_ENV").is_some() {
        "python"
    } else {
        "python3"
    };
    let output = Command::new(python)
        .args(["-c", PYTORCH_FOLDER])
        .output()
        .map_err(|error| {
            format!("LIBTORCH_USE_PYTORCH is set, but `{python}` does not run: {error}")
        })?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || folder.is_empty() {
        return Err(format!(
            "LIBTORCH_USE_PYTORCH is set, but `{python}` has no torch package"
        ));
    }
    Ok(PathBuf::from(folder))
}
