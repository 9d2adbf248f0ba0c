use super::*;
use std::fs;

const RECIPE: &str = include_str!("../../../models/recipes/shelf-student.toml");

const SWEEP: &str = r#"
    data = "shelves"
    split = "train"
    teacher = "shelf.teacher"
    cache = "cache"
    out = "sweep"
    seeds = [1, 9223372036854775807]
    precisions = ["f32", "int8"]

    [[galleries]]
    name = "shelf"

    [[students]]
    name = "small"
    recipe = "RECIPE"
    set = { epochs = 3, schedule = { peak = 5e-4 } }

    [[losses]]
    name = "reg"
    loss = [{ kind = "regression", weight = 1.0 }]
    map = { kind = "none" }

    [[losses]]
    name = "rc"
    loss = [{ kind = "relaxed-contrastive", weight = 1.0, sigma = 1.0, delta = 1.0 }]
    map = { kind = "ridge", penalty = 0.1 }
    set = { batch = { images = 16 } }
"#;

fn cells(change: impl Fn(String) -> String) -> Result<Vec<Cell>, SweepError> {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    fs::write(&recipe, RECIPE).unwrap();
    let text = SWEEP.replace("RECIPE", &recipe.display().to_string());
    let path = folder.path().join("sweep.toml");
    fs::write(&path, change(text)).unwrap();
    SweepFile::read(&path)?.cells(&path)
}

#[test]
fn every_loss_comes_with_the_first_seed_before_the_second() {
    let cells = cells(|text| text).unwrap();
    let shown: Vec<String> = cells.iter().map(Cell::to_string).collect();
    let last = i64::MAX;
    assert_eq!(
        shown,
        [
            "small reg seed 1".to_owned(),
            "small rc seed 1".to_owned(),
            format!("small reg seed {last}"),
            format!("small rc seed {last}"),
        ]
    );
}

#[test]
fn a_cell_is_the_base_recipe_with_what_the_axes_change() {
    let cells = cells(|text| text).unwrap();
    let base = Recipe::parse(RECIPE, "base", Trainee::Student).unwrap();
    let [reg, rc, ..] = &cells[..] else {
        panic!("four cells are wanted");
    };
    assert_eq!(reg.recipe.name, "small-reg");
    assert_eq!(reg.recipe.epochs, 3);
    assert_eq!(reg.recipe.batch, base.batch);
    assert_eq!(reg.recipe.optimizer, base.optimizer);
    assert_ne!(reg.recipe.schedule, base.schedule);
    assert_ne!(rc.recipe.batch, base.batch);
    assert_eq!(rc.recipe.seed, 1);
}

/// A third loss, of maps.
fn with_maps(text: String, more: &str) -> String {
    text + r#"
    [[losses]]
    name = "maps"
    loss = [
        { kind = "regression", weight = 1.0 },
        { kind = "attention-transfer", weight = 1.0, student = "fine.0.relu", teacher = "layer4.1.add.relu", power = 2 },
    ]
    map = { kind = "none" }
    "# + more
}

#[test]
fn a_loss_of_maps_comes_with_its_network() {
    let network = r#"teacher_network = { architecture = "resnet18", weights = "r18.safetensors" }"#;
    let cells = cells(|text| with_maps(text, network)).unwrap();
    let [reg, _, maps, ..] = &cells[..] else {
        panic!("six cells are wanted");
    };
    assert_eq!(maps.recipe.teacher_network.as_deref(), Some("resnet18"));
    assert_eq!(
        maps.teacher_network.as_deref(),
        Some(Path::new("r18.safetensors"))
    );
    assert_eq!(reg.recipe.teacher_network, None);
    assert_eq!(reg.teacher_network, None);
}

#[test]
fn a_base_recipe_with_a_network_serves_losses_without_maps() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("maps.toml");
    fs::write(&recipe, format!("teacher_network = \"resnet18\"\n{RECIPE}")).unwrap();
    let shown = recipe.display().to_string();
    let of_maps = |text: String| {
        let line = text
            .lines()
            .find(|line| line.contains("recipe = "))
            .unwrap();
        text.replace(line, &format!("recipe = \"{shown}\""))
    };
    let cells = cells(of_maps).unwrap();
    assert_eq!(cells[0].recipe.teacher_network, None);
}

#[test]
fn a_student_that_leaves_the_teachers_space_is_in_no_sweep() {
    let map = r#"map = { kind = "ridge", penalty = 0.1 }"#;
    let whitening = r#"map = { kind = "whitening", pairs = "label" }"#;
    let err = cells(|text| text.replace(map, whitening)).unwrap_err();
    let said = eyas_device::hints::chain_of(&err);
    assert!(said.contains("leaves the teacher's space"), "{said}");
}

#[test]
fn a_loss_of_maps_without_its_network_is_named() {
    let complaint = |more: &str| {
        let err = cells(|text| with_maps(text, more)).unwrap_err();
        eyas_device::hints::chain_of(&err)
    };
    let nothing = complaint("");
    assert!(nothing.contains("loss `maps`"), "{nothing}");
    assert!(nothing.contains("compares maps"), "{nothing}");
    let no_weights = complaint("set = { teacher_network = \"resnet18\" }");
    assert!(no_weights.contains("loss `maps`"), "{no_weights}");
    assert!(no_weights.contains("weights = "), "{no_weights}");
}

#[test]
fn a_table_of_another_kind_takes_the_whole_place() {
    let mut table: Table = toml::from_str("a = { kind = \"x\", p = 1, q = 2 }").unwrap();
    overlay(&mut table, &toml::from_str("a = { p = 3 }").unwrap());
    let same: Table = toml::from_str("a = { kind = \"x\", p = 3, q = 2 }").unwrap();
    assert_eq!(table, same);
    let other: Table = toml::from_str("a = { kind = \"y\", r = 1 }").unwrap();
    overlay(&mut table, &other);
    assert_eq!(table, other);
}

#[test]
fn what_makes_no_sense_is_named() {
    let complaint = |from: &str, to: &str| {
        let err = cells(|text| text.replace(from, to)).unwrap_err();
        eyas_device::hints::chain_of(&err)
    };
    assert!(complaint("\"rc\"", "\"reg\"").contains("`reg` is there twice"));
    assert!(complaint("\"rc\"", "\"../rc\"").contains("names a folder"));
    assert!(complaint("[1, ", "[9223372036854775807, ").contains("there twice"));
    let unknown = complaint("epochs = 3", "epoch = 3");
    assert!(
        unknown.contains("student `small` with loss `reg`") && unknown.contains("`epoch`"),
        "{unknown}"
    );
    let start = complaint("set = { epochs", "start = \"w\"\nset = { epochs");
    assert!(
        start.contains("student `small`") && start.contains("from scratch"),
        "{start}"
    );
    let Err(SweepError::Syntax { suggestion, .. }) = cells(|text| text.replace("seeds", "seed"))
    else {
        panic!("it was accepted");
    };
    assert_eq!(suggestion.as_deref(), Some("seeds"));
}

#[test]
fn precisions_are_named_as_bundles_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.toml");
    let read = |precision: &str| {
        fs::write(
            &path,
            SWEEP.replace("\"int8\"", &format!("\"{precision}\"")),
        )
        .unwrap();
        SweepFile::read(&path)
    };
    let precisions = read("full-int8").unwrap().precisions;
    assert_eq!(precisions, [Precision::F32, Precision::FullInt8]);
    assert_eq!(precisions[1].to_string(), "full-int8");
    assert!(read("fullint8").is_err());
}
