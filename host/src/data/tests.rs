//! Layouts on disk, and what is said about wrong ones.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

mod benchmarks;

/// A small JPEG whose bytes depend on `tint`.
pub(super) fn jpeg(tint: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let samples: Vec<u8> = (0..20 * 20 * 3)
        .map(|i| (i as u8).wrapping_mul(tint))
        .collect();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(&samples, 20, 20, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    bytes
}

/// A folder that holds these files, all different images.
pub(crate) fn images(paths: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (i, path) in paths.iter().enumerate() {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, jpeg(i as u8 + 1)).unwrap();
    }
    folder
}

/// `path label split query gallery` of every image.
fn rows(manifest: &Manifest) -> Vec<String> {
    let row = |image: &Image| {
        format!(
            "{} {} {} {} {}",
            image.path,
            image.label,
            image.split,
            u8::from(image.is_query),
            u8::from(image.is_gallery)
        )
    };
    manifest.images.iter().map(row).collect()
}

fn message(path: &Path) -> String {
    open(path).unwrap_err().to_string()
}

#[test]
fn class_folders_without_splits_have_every_role() {
    let folder = images(&["b/2.JPG", "b/1.jpeg", "a/x/1.jpg", "a/1.jpg"]);
    fs::write(folder.path().join("notes.txt"), "x").unwrap();
    fs::write(folder.path().join("a/._1.jpg"), "resource fork").unwrap();
    fs::create_dir(folder.path().join(".cache")).unwrap();
    fs::write(folder.path().join(".cache/1.jpg"), "hidden").unwrap();
    let manifest = open(folder.path()).unwrap();
    assert_eq!(
        rows(&manifest),
        [
            "a/1.jpg a train 1 1",
            "a/x/1.jpg a/x train 1 1",
            "b/1.jpeg b train 1 1",
            "b/2.JPG b train 1 1"
        ]
    );
    assert_eq!(
        manifest.images[0].id,
        eyas_shared::fingerprint::ImageId::of_file(&jpeg(4))
    );
    assert_eq!(listing::list(folder.path(), &mut Err).unwrap().n_other, 1);
}

#[test]
fn split_folders_give_roles() {
    let folder = images(&[
        "val/a/1.jpg",
        "train/a/2.jpg",
        "query/b/c/1.jpg",
        "gallery/b/c/2.jpg",
        "test/a/3.jpg",
    ]);
    assert_eq!(
        rows(&open(folder.path()).unwrap()),
        [
            "train/a/2.jpg a train 0 1",
            "val/a/1.jpg a val 1 0",
            "test/a/3.jpg a test 1 0",
            "query/b/c/1.jpg b/c query 1 0",
            "gallery/b/c/2.jpg b/c gallery 0 1"
        ]
    );
}

#[test]
fn a_flat_folder_labels_by_file_name() {
    let folder = images(&["milk.2%.jpg", "bread.png"]);
    assert_eq!(
        rows(&open(folder.path()).unwrap()),
        ["bread.png bread train 1 1", "milk.2%.jpg milk.2% train 1 1"]
    );
}

#[test]
fn ambiguous_folders_are_refused_by_name() {
    let folder = images(&["a/1.jpg", "2.jpg"]);
    let said = message(folder.path());
    assert!(said.contains("2.jpg` lies beside label folders"), "{said}");
    let folder = images(&["train/a/1.jpg", "cheese/2.jpg"]);
    let said = message(folder.path());
    assert!(
        said.contains("split folder `train` beside `cheese`"),
        "{said}"
    );
    let folder = images(&["train/a/1.jpg", "2.jpg"]);
    let said = message(folder.path());
    assert!(said.contains("2.jpg` lies beside label folders"), "{said}");
}

#[test]
fn missing_empty_and_wrong_paths_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let said = message(&folder.path().join("gone"));
    assert!(
        said.contains("gone` does not exist; name a folder"),
        "{said}"
    );
    let said = message(folder.path());
    assert!(said.contains("lists no image: 0 other files"), "{said}");
    let file = folder.path().join("notes.txt");
    fs::write(&file, "x").unwrap();
    assert!(message(&file).contains("neither a folder nor a CSV list"));
    assert!(message(folder.path()).contains("1 other files"));
}

#[cfg(unix)]
#[test]
fn links_that_lead_back_do_not_hang() {
    let folder = images(&["a/1.jpg"]);
    std::os::unix::fs::symlink(folder.path(), folder.path().join("a/loop")).unwrap();
    let said = message(folder.path());
    assert!(said.contains("a/loop` is the same as"), "{said}");
}

#[cfg(unix)]
#[test]
fn broken_links_and_names_beyond_utf8_are_named() {
    use std::os::unix::ffi::OsStrExt;
    let folder = images(&["a/1.jpg"]);
    std::os::unix::fs::symlink("nowhere", folder.path().join("a/2.jpg")).unwrap();
    let said = message(folder.path());
    assert!(
        said.contains("could not read") && said.contains("a/2.jpg"),
        "{said}"
    );
    let folder = images(&["a/1.jpg"]);
    let name = std::ffi::OsStr::from_bytes(b"\xff.jpg");
    fs::write(folder.path().join("a").join(name), jpeg(9)).unwrap();
    assert!(message(folder.path()).contains("is not UTF-8; rename it"));
}

/// A CSV file beside the images `1.jpg` and `2.jpg`.
fn csv_list(text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = images(&["1.jpg", "2.jpg"]);
    let path = folder.path().join("list.csv");
    fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn csv_columns_stand_in_any_order_and_have_defaults() {
    let (_folder, path) = csv_list(
        "\u{feff}is_gallery, path,label,note,split,is_query\nTrue,1.jpg,\"a, b\",x,test,0\n,2.jpg,c,,fold 1,1\n",
    );
    assert_eq!(
        rows(&open(&path).unwrap()),
        ["1.jpg a, b test 0 1", "2.jpg c fold 1 1 0"]
    );
    let (_folder, path) = csv_list("label,path\r\na,1.jpg\r\n");
    assert_eq!(rows(&open(&path).unwrap()), ["1.jpg a train 1 1"]);
    let (_folder, path) = csv_list("label,path,split\na,1.jpg,val\nb,2.jpg,iconic\n");
    assert_eq!(
        rows(&open(&path).unwrap()),
        ["1.jpg a val 1 0", "2.jpg b iconic 0 0"]
    );
}

#[test]
fn csv_faults_name_the_line() {
    let cases: [(&[u8], &str); 10] = [
        (b"", "line 1: column `label` is missing"),
        (
            b"label,file\na,1.jpg\n",
            "line 1: column `path` is missing among `label,file`",
        ),
        (
            b"label,path,is_galery\n",
            "line 1: column `is_galery` is unknown; is it `is_gallery`?",
        ),
        (
            b"label,path,label\n",
            "line 1: column `label` stands there twice",
        ),
        (
            b"label,path\na,1.jpg\nb\n",
            "line 3: 1 fields, the header has 2",
        ),
        (b"label,path\n,1.jpg\n", "line 2: column `label` is empty"),
        (b"label,path\na,\n", "line 2: column `path` is empty"),
        (
            b"label,path,is_query\na,1.jpg,yes\n",
            "line 2: column `is_query` holds `yes`",
        ),
        (
            b"label,path\na,1.jpg\nb,1.jpg\n",
            "line 3: path `1.jpg` already stands in line 2",
        ),
        (b"label,path\n\xff,1.jpg\n", "line 2: the text is not UTF-8"),
    ];
    for (text, expected) in cases {
        let (_folder, path) = csv_list(text);
        let said = message(&path);
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("list.csv`"), "{said}");
    }
    let (_folder, path) = csv_list("label,path\na,3.jpg\n");
    assert!(message(&path).contains("3.jpg"));
    let (_folder, path) = csv_list("label,path\n");
    assert!(message(&path).contains("lists no image"));
}

#[test]
fn a_manifest_comes_back_from_its_csv() {
    let folder = images(&["train/a,b/1.jpg", "query/c \"d\"/2.jpg"]);
    let manifest = open(folder.path()).unwrap();
    fs::write(folder.path().join(MANIFEST_NAME), manifest.to_csv()).unwrap();
    let again = open(folder.path()).unwrap();
    assert_eq!(again.images, manifest.images);
    assert_eq!(again.fingerprint(), manifest.fingerprint());
    assert!(again.path(&again.images[0]).is_file());
}

#[test]
fn validation_is_stratified_and_seeded() {
    let image = |i: usize| Image {
        path: format!("{i}"),
        label: format!("{}", i % 5),
        split: "train".into(),
        is_query: false,
        is_gallery: true,
        id: eyas_shared::fingerprint::ImageId([i as u8; 16]),
    };
    let mut all = Manifest {
        root: PathBuf::new(),
        images: (0..100).map(image).collect(),
    };
    all.images.push(Image {
        label: "lonely".into(),
        ..image(100)
    });
    let (train, validation) = all.split_validation(0.2, 1);
    assert_eq!((train.images.len(), validation.images.len()), (81, 20));
    for label in ["0", "1", "2", "3", "4"] {
        let n = validation
            .images
            .iter()
            .filter(|image| image.label == label)
            .count();
        assert_eq!(n, 4, "label {label}");
    }
    assert_eq!(all.split_validation(0.2, 1).1.images, validation.images);
    assert_ne!(all.split_validation(0.2, 2).1.images, validation.images);
    // Even when everything is asked for, each label trains on something.
    assert_eq!(all.split_validation(1.0, 1).0.labels().len(), 6);
    assert_eq!(all.split_validation(0.0, 1).1.images.len(), 0);
}

#[test]
fn the_grocery_store_lists_are_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/grocery");
    if !root.join("train.txt").is_file() {
        eprintln!("skipped: {} is not there", root.display());
        return;
    }
    let manifest = open(&root).unwrap();
    let select = |split: &str, role: Option<Role>| {
        let split = Some(split.to_owned());
        manifest.select(&Selection { split, role }).images.len()
    };
    assert_eq!(select("train", Some(Role::Gallery)), 2640);
    assert_eq!(select("val", Some(Role::Query)), 296);
    assert_eq!(select("iconic", None), 81);
    assert_eq!(select("iconic", Some(Role::Gallery)), 0);
    assert_eq!(manifest.images.len(), 2640 + 296 + 81);
    assert_eq!(manifest.labels().len(), 81);
}

#[test]
fn grocery_faults_name_list_and_line() {
    let folder = images(&["train/1.jpg"]);
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let header = "Class Name (str),Class ID (int),Coarse,Coarse ID,Iconic,Description\n";
    write("classes.csv", &format!("{header}Pear,0,Fruit,0,,\n"));
    write("train.txt", "train/1.jpg, 0, 0\n\ntrain/1.jpg, 7, 0\n");
    let said = message(folder.path());
    assert!(
        said.contains("train.txt`, line 3: class number `7` is not in classes.csv"),
        "{said}"
    );
    write("train.txt", "train/1.jpg\n");
    assert!(message(folder.path()).contains("line 1: `train/1.jpg` is not `path, class number"));
    write(
        "classes.csv",
        &format!("{header}Pear,0,Fruit,0,,\nPlum,zero,Fruit,0,,\n"),
    );
    assert!(message(folder.path()).contains("classes.csv`, line 3: class number `zero`"));
    write("classes.csv", &format!("{header}Pear,0,Fruit,0,,\n"));
    write("train.txt", "train/1.jpg, 0, 0");
    assert_eq!(
        rows(&open(folder.path()).unwrap()),
        ["train/1.jpg Pear train 0 1"]
    );
}
