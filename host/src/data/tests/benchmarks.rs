//! Published layouts, made small.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::{images, message, rows};
use crate::data::{landmarks, mat, open};

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn cub_is_parted_by_class_number() {
    let folder = images(&[
        "images/001.Albatross/A_1.jpg",
        "images/001.Albatross/A_2.jpg",
        "images/002.Auklet/B_1.jpg",
        "images/003.Crow/C_1.jpg",
        "images/004.Flicker/D_1.jpg",
    ]);
    let list = "1 001.Albatross/A_1.jpg\n2 001.Albatross/A_2.jpg\n3 002.Auklet/B_1.jpg\n\
                4 003.Crow/C_1.jpg\n5 003.Crow/._C_1.jpg\n6 004.Flicker/D_1.jpg\n";
    write(folder.path(), "images.txt", list);
    write(
        folder.path(),
        "image_class_labels.txt",
        "1 1\n2 1\n3 2\n4 3\n5 3\n6 4\n",
    );
    write(
        folder.path(),
        "train_test_split.txt",
        "1 0\n2 1\n3 1\n4 1\n5 1\n6 0\n",
    );
    assert_eq!(
        rows(&open(folder.path()).unwrap()),
        [
            "images/001.Albatross/A_1.jpg 001.Albatross train 0 0",
            "images/001.Albatross/A_2.jpg 001.Albatross train 0 0",
            "images/002.Auklet/B_1.jpg 002.Auklet train 0 0",
            "images/003.Crow/C_1.jpg 003.Crow test 1 1",
            "images/004.Flicker/D_1.jpg 004.Flicker test 1 1",
        ]
    );
    write(folder.path(), "image_class_labels.txt", "1 1\n2 one\n");
    let said = message(folder.path());
    assert!(
        said.contains("image_class_labels.txt`, line 2: `2 one`"),
        "{said}"
    );
    write(folder.path(), "image_class_labels.txt", "1 1\n");
    let said = message(folder.path());
    assert!(
        said.contains("images.txt`, line 2: image 2 is not in"),
        "{said}"
    );
}

#[test]
fn online_products_are_read_from_their_two_lists() {
    let folder = images(&["bicycle_final/1_0.JPG", "chair_final/9_1.JPG"]);
    let header = "image_id class_id super_class_id path\n";
    let train = format!("{header}1 1 1 bicycle_final/1_0.JPG\n");
    write(folder.path(), "Ebay_train.txt", train);
    let test = format!("{header}59552 11319 2 chair_final/9_1.JPG\n");
    write(folder.path(), "Ebay_test.txt", test);
    write(folder.path(), "Ebay_info.txt", "not read");
    assert_eq!(
        rows(&open(folder.path()).unwrap()),
        [
            "bicycle_final/1_0.JPG 1 train 0 0",
            "chair_final/9_1.JPG 11319 test 1 1"
        ]
    );
    write(folder.path(), "Ebay_test.txt", format!("{header}\n1 2 3\n"));
    let said = message(folder.path());
    assert!(
        said.contains("Ebay_test.txt`, line 3: `1 2 3` is not"),
        "{said}"
    );
}

/// The published list: a count, a header, and columns of 70, 11 and 11 characters.
fn in_shop_list(listed: &[[&str; 3]]) -> String {
    let row = |[image, item, status]: &[&str; 3]| format!("{image:<70} {item:<11} {status:<11}\n");
    let rows: String = listed.iter().map(row).collect();
    let n_rows = listed.len();
    format!("{n_rows}\nimage_name item_id evaluation_status\n{rows}")
}

#[test]
fn in_shop_has_its_own_queries_and_gallery() {
    let dress = "img/WOMEN/Dresses/id_00000002/02_1_front.jpg";
    let blouse = "img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg";
    let its_back = "img/WOMEN/Blouses_Shirts/id_00000001/02_3_back.jpg";
    let list = in_shop_list(&[
        [dress, "id_00000002", "train"],
        [blouse, "id_00000001", "query"],
        [its_back, "id_00000001", "gallery"],
    ]);
    // `img.zip` is unpacked where it lies, in Img, or beside the list.
    for (list_file, images_in) in [
        ("Eval/list_eval_partition.txt", "Img/"),
        ("Eval/list_eval_partition.txt", ""),
        ("list_eval_partition.txt", ""),
    ] {
        let paths = [dress, blouse, its_back].map(|image| format!("{images_in}{image}"));
        let folder = images(&paths.each_ref().map(String::as_str));
        write(folder.path(), list_file, &list);
        let expected = [
            format!("{} id_00000002 train 0 0", paths[0]),
            format!("{} id_00000001 query 1 0", paths[1]),
            format!("{} id_00000001 gallery 0 1", paths[2]),
        ];
        assert_eq!(rows(&open(folder.path()).unwrap()), expected);
        let cut = list.trim_end().rsplit_once('\n').unwrap().0;
        write(folder.path(), list_file, cut);
        let said = message(folder.path());
        assert!(said.contains("declares 3 images and names 2"), "{said}");
    }
}

#[test]
fn omniglot_labels_are_alphabet_and_character() {
    let folder = images(&[
        "images_background/Greek/character01/0394_01.png",
        "images_evaluation/Tengwar/character02/0900_01.png",
    ]);
    assert_eq!(
        rows(&open(folder.path()).unwrap()),
        [
            "images_background/Greek/character01/0394_01.png Greek/character01 train 0 0",
            "images_evaluation/Tengwar/character02/0900_01.png Tengwar/character02 test 1 1"
        ]
    );
    let alone = open(&folder.path().join("images_background")).unwrap();
    assert_eq!(
        rows(&alone),
        ["Greek/character01/0394_01.png Greek/character01 train 1 1"]
    );
}

/// An element of a MAT file with its padding; up to four bytes go into the tag.
fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if (1..=4).contains(&data.len()) {
        out.extend((kind | (data.len() as u32) << 16).to_le_bytes());
        out.extend(data);
        out.resize(8, 0);
        return out;
    }
    out.extend(kind.to_le_bytes());
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

fn array(class: u32, n: i32, name: &str, content: &[u8]) -> Vec<u8> {
    let sides: Vec<u8> = [1, n]
        .iter()
        .flat_map(|side: &i32| side.to_le_bytes())
        .collect();
    let parts = [
        element(6, &[class.to_le_bytes(), [0; 4]].concat()),
        element(5, &sides),
        element(1, name.as_bytes()),
        content.to_vec(),
    ];
    element(14, &parts.concat())
}

fn text(text: &str) -> Vec<u8> {
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    array(4, text.len() as i32, "", &element(4, &units))
}

/// A number as MATLAB saves it: a double, in as few bytes as hold it.
fn number(value: u16) -> Vec<u8> {
    let stored = match u8::try_from(value) {
        Ok(byte) => element(2, &[byte]),
        Err(_) => element(4, &value.to_le_bytes()),
    };
    array(6, 1, "", &stored)
}

/// The fields of an element of `annotations`, in the published order.
const ANNOTATION: [&str; 7] = [
    "relative_im_path",
    "bbox_x1",
    "bbox_y1",
    "bbox_x2",
    "bbox_y2",
    "class",
    "test",
];

/// The published `cars_annos.mat`, of images with these class numbers: `annotations` with
/// path, box, class and part of each, and `class_names`.
fn cars_annos(classes: &[u8]) -> Vec<u8> {
    let names: Vec<u8> = { ANNOTATION.iter() }
        .flat_map(|name| {
            let mut padded = name.as_bytes().to_vec();
            padded.resize(32, 0);
            padded
        })
        .collect();
    let mut content = [element(5, &32_i32.to_le_bytes()), element(1, &names)].concat();
    for (i, class) in classes.iter().enumerate() {
        content.extend(text(&format!("car_ims/{:06}.jpg", i + 1)));
        for side in [112, 7, 853, 717] {
            content.extend(number(side));
        }
        content.extend(number(u16::from(*class)));
        // Whether it tests in the dataset's own parts, which are not those of retrieval.
        content.extend(number(u16::from(i == 0)));
    }
    let annotations = array(2, classes.len() as i32, "annotations", &content);
    let names = [
        "AM General Hummer SUV 2000",
        "Acura RL",
        "BMW X3",
        "Volvo 240",
    ];
    let cells: Vec<u8> = names.iter().flat_map(|name| text(name)).collect();
    let class_names = array(1, 4, "class_names", &cells);
    let mut file = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".to_vec();
    file.resize(124, b' ');
    file.extend([0, 1, b'I', b'M']);
    for variable in [annotations, class_names] {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
        packed.write_all(&variable).unwrap();
        let packed = packed.finish().unwrap();
        file.extend(15_u32.to_le_bytes());
        file.extend((packed.len() as u32).to_le_bytes());
        file.extend(packed);
    }
    file
}

#[test]
fn cars_are_read_from_their_matlab_file() {
    let folder = images(&[
        "car_ims/000001.jpg",
        "car_ims/000002.jpg",
        "car_ims/000003.jpg",
    ]);
    write(folder.path(), "cars_annos.mat", cars_annos(&[1, 4, 2]));
    assert_eq!(
        rows(&open(folder.path()).unwrap()),
        [
            "car_ims/000001.jpg AM General Hummer SUV 2000 train 0 0",
            "car_ims/000002.jpg Volvo 240 test 1 1",
            "car_ims/000003.jpg Acura RL train 0 0",
        ]
    );
    write(folder.path(), "cars_annos.mat", cars_annos(&[1, 0]));
    let said = message(folder.path());
    assert!(said.contains("annotation 2"), "{said}");
    write(folder.path(), "cars_annos.mat", "MATLAB 7.3");
    assert!(message(folder.path()).contains("too short"));
}

#[test]
fn damaged_matlab_files_end_without_panic() {
    let whole = cars_annos(&[1, 2]);
    for end in 0..whole.len() {
        let _ = mat::read(&whole[..end]);
    }
    for at in 120..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            let _ = mat::read(&damaged);
        }
    }
    // The same within what zlib guards.
    let header = &whole[..128];
    let inner = array(
        2,
        1,
        "s",
        &[
            element(5, &8_i32.to_le_bytes()),
            element(1, b"field\0\0\0"),
            text("x"),
        ]
        .concat(),
    );
    for at in 0..inner.len() {
        for flip in [0x01, 0x10, 0x80, 0xff] {
            let mut damaged = inner.clone();
            damaged[at] ^= flip;
            let _ = mat::read(&[header, &damaged].concat());
        }
    }
    let mut nested = Vec::new();
    for _ in 0..40 {
        nested = array(1, i32::from(!nested.is_empty()), "", &nested);
    }
    let said = mat::read(&[header, &nested].concat())
        .unwrap_err()
        .to_string();
    assert!(said.contains("nests more than"), "{said}");
    let huge = array(1, i32::MAX, "c", &[]);
    assert!(mat::read(&[header, &huge].concat()).is_err());
}

/// Runs a line of Python that writes a file; `None`, with a message, where it can not.
fn python(line: &str, path: &Path) -> Option<()> {
    let Some(interpreter) = std::env::var_os("EYAS_PYTHON") else {
        eprintln!("skipped: EYAS_PYTHON names no interpreter");
        return None;
    };
    let run = std::process::Command::new(interpreter)
        .args(["-c", line])
        .arg(path)
        .output()
        .unwrap();
    if !run.status.success() {
        let said = String::from_utf8_lossy(&run.stderr);
        eprintln!(
            "skipped: {}",
            said.lines().last().unwrap_or("Python failed")
        );
        return None;
    }
    Some(())
}

#[test]
fn a_matlab_file_that_scipy_wrote_is_read() {
    let folder = images(&["car_ims/000001.jpg", "car_ims/000002.jpg"]);
    let line = "
import sys, numpy as np, scipy.io
fields = ['relative_im_path', 'bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2', 'class', 'test']
kinds = [(field, 'O') for field in fields]
rows = [('car_ims/000001.jpg', 112, 7, 853, 717, 1, 0), ('car_ims/000002.jpg', 48, 24, 30000, 202, 2, 1)]
names = np.array(['Acura RL', 'BMW X3'], dtype=object)
for pack in [False, True]:
    scipy.io.savemat(sys.argv[1] + str(int(pack)), {'annotations': np.array([rows], dtype=kinds), 'class_names': names}, do_compression=pack, appendmat=False)
";
    let stem = folder.path().join("m");
    if python(line, &stem).is_none() {
        return;
    }
    for name in ["m0", "m1"] {
        fs::copy(
            folder.path().join(name),
            folder.path().join("cars_annos.mat"),
        )
        .unwrap();
        assert_eq!(
            rows(&open(folder.path()).unwrap()),
            [
                "car_ims/000001.jpg Acura RL train 0 0",
                "car_ims/000002.jpg BMW X3 test 1 1",
            ]
        );
    }
}

/// A dictionary in protocol 0: `{'train': part, 'val': part}` with three images.
fn sfm_pickle() -> String {
    let part = |cids: [&str; 3], clusters: [u8; 3]| {
        let cids = cids.map(|cid| format!("S'{cid}'\na")).concat();
        let clusters = clusters.map(|cluster| format!("I{cluster}\na")).concat();
        format!(
            "(dS'cids'\n(l{cids}sS'cluster'\n(l{clusters}sS'qidxs'\n(lI0\naI1\nasS'pidxs'\n(lI1\naI0\nas"
        )
    };
    let train = part(["00aabbcc", "00aabbdd", "11aabbee"], [3, 3, 5]);
    let val = part(["22aabbcc", "22aabbdd", "33aabbee"], [7, 7, 7]);
    format!("(dS'train'\n{train}sS'val'\n{val}s.")
}

#[test]
fn structure_from_motion_tuples_are_read() {
    let folder = images(&[
        "ims/cc/bb/aa/00aabbcc",
        "ims/dd/bb/aa/00aabbdd",
        "ims/ee/bb/aa/11aabbee",
        "ims/cc/bb/aa/22aabbcc",
        "ims/dd/bb/aa/22aabbdd",
        "ims/ee/bb/aa/33aabbee",
    ]);
    write(folder.path(), "retrieval-SfM-120k.pkl", sfm_pickle());
    write(
        folder.path(),
        "retrieval-SfM-120k-whiten.pkl",
        "not this one",
    );
    assert_eq!(
        rows(&open(folder.path()).unwrap()),
        [
            "ims/cc/bb/aa/00aabbcc 3 train 0 0",
            "ims/dd/bb/aa/00aabbdd 3 train 0 0",
            "ims/ee/bb/aa/11aabbee 5 train 0 0",
            "ims/cc/bb/aa/22aabbcc 7 val 1 1",
            "ims/dd/bb/aa/22aabbdd 7 val 1 1",
            "ims/ee/bb/aa/33aabbee 7 val 0 1",
        ]
    );
    let path = folder.path().join("retrieval-SfM-120k.pkl");
    let [train, _] = landmarks::read_tuples(&path).unwrap();
    assert_eq!(train.pairs, [(0, 1), (1, 0)]);
    let whiten = "(dS'cids'\n(lS'123456'\naS'234567'\nasS'qidxs'\n(lI1\nasS'pidxs'\n(lI0\nas.";
    write(folder.path(), "w.pkl", whiten);
    let pairs = landmarks::read_whitening_pairs(&folder.path().join("w.pkl")).unwrap();
    assert_eq!(pairs.pairs, [(1, 0)]);
    assert_eq!(pairs.paths[0], "ims/56/34/12/123456");
    let cases = [
        (whiten.replace("lI1", "lI2"), "whole numbers below 2"),
        (whiten.replace("123456", "../456"), "plain characters"),
        (whiten.replace("123456", "123"), "plain characters"),
        (
            whiten.replace("'pidxs'\n(lI0\na", "'pidxs'\n(l"),
            "equal lengths",
        ),
        (whiten.replace("pidxs", "other"), "key `pidxs`"),
    ];
    for (text, expected) in cases {
        write(folder.path(), "w.pkl", text);
        let said = landmarks::read_whitening_pairs(&folder.path().join("w.pkl"));
        let said = said.unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn revisited_ground_truth_is_read() {
    let folder = images(&[
        "jpg/all_souls_000013.jpg",
        "jpg/all_souls_000001.jpg",
        "jpg/magdalen_000002.jpg",
    ]);
    let gnd = "(dS'imlist'\n(lS'all_souls_000001'\naS'magdalen_000002'\nas\
               S'qimlist'\n(lS'all_souls_000013'\nasS'gnd'\n(l(dS'bbx'\n(lF1.5\naF2.0\naF10.0\naF12.0\nas\
               S'easy'\n(lI0\nasS'hard'\n(lsS'junk'\n(lI1\nasas.";
    write(folder.path(), "gnd_roxford5k.pkl", gnd);
    assert_eq!(
        rows(&open(folder.path()).unwrap()),
        [
            "jpg/all_souls_000013.jpg all_souls query 1 0",
            "jpg/all_souls_000001.jpg all_souls gallery 0 1",
            "jpg/magdalen_000002.jpg magdalen gallery 0 1",
        ]
    );
    let found = landmarks::read_revisited(&folder.path().join("gnd_roxford5k.pkl")).unwrap();
    let query = &found.queries[0];
    assert_eq!(query.bounds, [1.5, 2.0, 10.0, 12.0]);
    assert_eq!(
        (
            &query.truth.easy[..],
            &query.truth.hard[..],
            &query.truth.junk[..]
        ),
        (&[0][..], &[][..], &[1][..])
    );
    let cases = [
        (gnd.replace("F10.0", "F1.0"), "left, top, right, bottom"),
        (gnd.replace("(lI1", "(lI2"), "whole numbers below 2"),
        (gnd.replace("all_souls_000001", "../x"), "plain image names"),
    ];
    for (text, expected) in cases {
        write(folder.path(), "gnd_roxford5k.pkl", text);
        let said = message(folder.path());
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_pickle_that_python_wrote_with_numpy_is_read() {
    let folder = images(&["ims/56/34/12/00123456", "ims/67/45/23/00234567"]);
    let line = "
import sys, pickle, numpy as np
part = {'cids': ['00123456', '00234567'], 'cluster': np.array([4, 9]), 'qidxs': np.array([1], dtype='int32'), 'pidxs': [np.int64(0)]}
none = {'cids': [], 'cluster': [], 'qidxs': [], 'pidxs': []}
for protocol in range(5):
    with open(sys.argv[1] + str(protocol), 'wb') as file:
        pickle.dump({'train': part, 'val': none}, file, protocol)
";
    let stem = folder.path().join("p");
    if python(line, &stem).is_none() {
        return;
    }
    for protocol in 2..5 {
        let path = folder.path().join(format!("p{protocol}"));
        let [train, _] = landmarks::read_tuples(&path).unwrap();
        assert_eq!(train.clusters, Some(vec![4, 9]), "protocol {protocol}");
        assert_eq!(train.pairs, [(1, 0)]);
    }
}
