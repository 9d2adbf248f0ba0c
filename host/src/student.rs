//! What training hands over: a student as plain numbers, with the embeddings that libtorch
//! computed, so that export can compare without libtorch.
//!
//! Between `eyas train` and `eyas export` it lies in the run directory as three files:
//!
//! | file | what |
//! |---|---|
//! | `student.safetensors` | weights, batch norm not folded |
//! | `reference.safetensors` | libtorch's embeddings: `probes`, `images` |
//! | `student.json` | everything else, and the SHA-256 of the other two |
//!
//! `student.json` is written last: where it lies, the student is whole.

use std::path::{Path, PathBuf};

use eyas_shared::embedding::{Embeddings, MAX_DIM};
use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::preprocess::PreprocessSpec;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::weights::{Weight, Weights, WeightsError};
use crate::zoo::{self, Network};

/// Name of the file that describes a student; the others lie beside it.
pub const STUDENT_FILE: &str = "student.json";

const WEIGHTS_FILE: &str = "student.safetensors";
const REFERENCE_FILE: &str = "reference.safetensors";
const SCHEMA: &str = "eyas.student/1";

/// Largest `student.json` that is read; one line of a reference image is about 100 bytes.
const MAX_JSON_BYTES: u64 = 16 << 20;
/// Largest file of weights or embeddings that is read.
const MAX_TENSOR_BYTES: u64 = 4 << 30;

/// Number of [`eyas_shared::bundle::probe_image`]s that every student is checked with.
/// Students of version 0.1 have 8.
pub const N_PROBES: u32 = 16;

/// A student after training, mapped into the teacher's space.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedStudent {
    /// Name for people.
    pub name: String,
    /// Its architecture.
    pub network: Network,
    /// Its weights, batch norm not folded.
    pub weights: Weights,
    /// The pixels it reads.
    pub preprocess: PreprocessSpec,
    /// The teacher's space that its embeddings live in.
    pub space: SpaceId,
    /// Name of the teacher.
    pub teacher: String,
    /// SHA-256 of the resolved recipe.
    pub recipe: Fingerprint,
    /// The recipe's seed.
    pub seed: u64,
    /// Fingerprint of the manifest that it was trained on.
    pub manifest: Fingerprint,
    /// What libtorch computed.
    pub reference: ReferenceEmbeddings,
}

/// Unit embeddings computed by libtorch after training.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceEmbeddings {
    /// Of the probe images, in order: [`N_PROBES`] rows, or fewer from older versions.
    pub probes: Embeddings,
    /// Identity and root-relative path of the real images that follow.
    pub images: Vec<(ImageId, String)>,
    /// Of these images, in order.
    pub of_images: Embeddings,
}

/// Why a student's files can not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StudentError {
    /// A file can not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no student in the folder.
    #[error("`{}` holds no finished student: there is no `{STUDENT_FILE}`; does training still run?", folder.display())]
    NotFinished {
        /// The folder.
        folder: PathBuf,
    },
    /// The description is not JSON, or lacks something.
    #[error("`{}` can not be read: {source}", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// What the reader found.
        source: serde_json::Error,
    },
    /// A field that makes no sense.
    #[error("`{}`: {what}", path.display())]
    Field {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file of another student.
    #[error("`{}` is not the file that `{STUDENT_FILE}` names: expected {expected}, found {found}; train again, or restore both from one backup", path.display())]
    OtherFile {
        /// Which file.
        path: PathBuf,
        /// Short fingerprint in the description.
        expected: String,
        /// Short fingerprint of the file.
        found: String,
    },
    /// Weights that do not fit the architecture.
    #[error("`{}`: {source}", path.display())]
    Weights {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        source: WeightsError,
    },
}

/// A student as it was found in a run directory.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredStudent {
    /// The student.
    pub student: TrainedStudent,
    /// Root of the reference images when it was saved, an absolute path.
    pub images_root: PathBuf,
}

/// `student.json`. Fingerprints are 64 hexadecimal digits, image ids 32.
#[derive(Serialize, Deserialize)]
struct Description {
    schema: String,
    name: String,
    architecture: String,
    /// Students of version 0.1 pooled by the mean and do not say so.
    #[serde(default)]
    pooling: zoo::Pooling,
    dim: usize,
    preprocess: PreprocessSpec,
    space: String,
    teacher: String,
    recipe: String,
    seed: u64,
    manifest: String,
    weights_file: String,
    reference_file: String,
    images_root: PathBuf,
    images: Vec<ImageEntry>,
}

#[derive(Serialize, Deserialize)]
struct ImageEntry {
    id: String,
    path: String,
}

impl TrainedStudent {
    /// Writes the student into a folder. `images_root` is the folder that the paths of the
    /// reference images are relative to.
    ///
    /// # Errors
    /// If a file can not be written.
    pub fn save(&self, folder: &Path, images_root: &Path) -> Result<(), StudentError> {
        files::create_folder(folder)?;
        let weights = self.weights.to_bytes();
        let reference = reference_weights(&self.reference).to_bytes();
        let images_root = std::path::absolute(images_root)
            .map_err(FileError::because("find the absolute path of", images_root))?;
        let image = |(id, path): &(ImageId, String)| ImageEntry {
            id: id.to_string(),
            path: path.clone(),
        };
        let description = Description {
            schema: SCHEMA.to_owned(),
            name: self.name.clone(),
            architecture: self.network.name.clone(),
            pooling: self.network.pooling(),
            dim: self.network.dim(),
            preprocess: self.preprocess.clone(),
            space: self.space.0.to_string(),
            teacher: self.teacher.clone(),
            recipe: self.recipe.to_string(),
            seed: self.seed,
            manifest: self.manifest.to_string(),
            weights_file: Fingerprint::of_bytes(&weights).to_string(),
            reference_file: Fingerprint::of_bytes(&reference).to_string(),
            images_root,
            images: self.reference.images.iter().map(image).collect(),
        };
        let path = folder.join(STUDENT_FILE);
        let json = serde_json::to_string_pretty(&description);
        let json = json.map_err(|source| StudentError::Json {
            path: path.clone(),
            source,
        })?;
        files::replace(&folder.join(WEIGHTS_FILE), &weights)?;
        files::replace(&folder.join(REFERENCE_FILE), &reference)?;
        Ok(files::replace(&path, (json + "\n").as_bytes())?)
    }

    /// Reads the student that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`StudentError`] says which file does not fit, and how.
    pub fn open(folder: &Path) -> Result<StoredStudent, StudentError> {
        let path = folder.join(STUDENT_FILE);
        if !path.exists() {
            let folder = folder.to_owned();
            return Err(StudentError::NotFinished { folder });
        }
        let json = files::read(&path, MAX_JSON_BYTES)?;
        let description: Description =
            serde_json::from_slice(&json).map_err(|source| StudentError::Json {
                path: path.clone(),
                source,
            })?;
        let fault = |what: String| StudentError::Field {
            path: path.clone(),
            what,
        };
        let network = network(&description).map_err(&fault)?;
        let named = |field: &str, hex: &str| {
            Fingerprint::from_hex(hex)
                .ok_or_else(|| fault(format!("`{field}` is no SHA-256: `{hex}`")))
        };
        let weights = read_part(
            &folder.join(WEIGHTS_FILE),
            named("weights_file", &description.weights_file)?,
        )?;
        for shape in network.weights() {
            let fits = weights.get(&shape.name, &shape.shape);
            fits.map_err(|source| StudentError::Weights {
                path: folder.join(WEIGHTS_FILE),
                source,
            })?;
        }
        let reference_path = folder.join(REFERENCE_FILE);
        let stored = read_part(
            &reference_path,
            named("reference_file", &description.reference_file)?,
        )?;
        let images = image_list(&description.images).map_err(&fault)?;
        let reference = reference_of(&stored, images, description.dim);
        let student = TrainedStudent {
            reference: reference.map_err(|source| StudentError::Weights {
                path: reference_path,
                source,
            })?,
            network,
            weights,
            space: SpaceId(named("space", &description.space)?),
            recipe: named("recipe", &description.recipe)?,
            manifest: named("manifest", &description.manifest)?,
            name: description.name,
            preprocess: description.preprocess,
            teacher: description.teacher,
            seed: description.seed,
        };
        Ok(StoredStudent {
            student,
            images_root: description.images_root,
        })
    }
}

fn network(description: &Description) -> Result<Network, String> {
    if description.schema != SCHEMA {
        let found = &description.schema;
        return Err(format!(
            "its schema is `{found}`; this build reads `{SCHEMA}`"
        ));
    }
    let dim = description.dim;
    if !(1..=MAX_DIM).contains(&dim) {
        return Err(format!("dimension {dim} is not in 1..={MAX_DIM}"));
    }
    if let Some(fault) = description.preprocess.fault() {
        return Err(format!("`preprocess`: {fault}"));
    }
    let network = zoo::by_name(&description.architecture, dim);
    let side = description.preprocess.crop as usize;
    let network = network.map(|it| it.for_side(side).with_pooling(description.pooling));
    network.ok_or_else(|| {
        let known: Vec<&str> = zoo::ARCHITECTURES.iter().map(|(name, _)| *name).collect();
        format!(
            "architecture `{}` is not known to this build; it knows {}",
            description.architecture,
            known.join(", ")
        )
    })
}

fn image_list(entries: &[ImageEntry]) -> Result<Vec<(ImageId, String)>, String> {
    let image = |entry: &ImageEntry| {
        // An id is half of a fingerprint.
        let id = Fingerprint::from_hex(&entry.id.repeat(2))
            .and_then(|print| print.0.first_chunk().copied().map(ImageId))
            .ok_or_else(|| format!("`{}` is no image id", entry.id))?;
        Ok((id, entry.path.clone()))
    };
    entries.iter().map(image).collect()
}

fn read_part(path: &Path, expected: Fingerprint) -> Result<Weights, StudentError> {
    let bytes = files::read(path, MAX_TENSOR_BYTES)?;
    let found = Fingerprint::of_bytes(&bytes);
    if found != expected {
        return Err(StudentError::OtherFile {
            path: path.to_owned(),
            expected: expected.short(),
            found: found.short(),
        });
    }
    Weights::from_bytes(&bytes, path).map_err(|source| StudentError::Weights {
        path: path.to_owned(),
        source,
    })
}

const PROBES: &str = "probes";
const IMAGES: &str = "images";

fn reference_weights(reference: &ReferenceEmbeddings) -> Weights {
    let matrix = |embeddings: &Embeddings| Weight {
        shape: vec![embeddings.n_rows(), embeddings.dim()],
        values: embeddings.values().to_vec(),
    };
    Weights(
        [
            (PROBES.to_owned(), matrix(&reference.probes)),
            (IMAGES.to_owned(), matrix(&reference.of_images)),
        ]
        .into(),
    )
}

fn reference_of(
    stored: &Weights,
    images: Vec<(ImageId, String)>,
    dim: usize,
) -> Result<ReferenceEmbeddings, WeightsError> {
    let matrix = |name: &str, n_rows: usize| {
        let weight = stored.get(name, &[n_rows, dim])?;
        Ok::<_, WeightsError>(
            Embeddings::from_values(dim, weight.values.clone()).expect("the shape was checked"),
        )
    };
    // How many probes there were is the file's to say, within reason.
    let n_probes = stored
        .0
        .get(PROBES)
        .map_or(0, |it| it.shape.first().copied().unwrap_or(0));
    Ok(ReferenceEmbeddings {
        probes: matrix(PROBES, n_probes.clamp(1, N_PROBES as usize))?,
        of_images: matrix(IMAGES, images.len())?,
        images,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::preprocess::{Filter, IMAGENET_MEAN, IMAGENET_STD};

    const DIM: usize = 8;

    fn student() -> TrainedStudent {
        let network = zoo::by_name("eyas-xs", DIM).unwrap();
        let print = |text: &str| Fingerprint::of_bytes(text.as_bytes());
        let matrix = |n_rows: usize| {
            let values = (0..n_rows * DIM).map(|i| i as f32 + 1.0).collect();
            let mut matrix = Embeddings::from_values(DIM, values).unwrap();
            matrix.normalize_rows();
            matrix
        };
        TrainedStudent {
            name: "shelf".to_owned(),
            weights: crate::export::reference::random_weights(&network, 1),
            network,
            preprocess: PreprocessSpec {
                resize_shorter: 72,
                crop: 64,
                filter: Filter::Bilinear,
                mean: IMAGENET_MEAN,
                std: IMAGENET_STD,
            },
            space: SpaceId(print("space")),
            teacher: "big".to_owned(),
            recipe: print("recipe"),
            seed: u64::MAX,
            manifest: print("manifest"),
            reference: ReferenceEmbeddings {
                probes: matrix(N_PROBES as usize),
                images: vec![(ImageId([7; 16]), "a/b \"c\".jpg".to_owned())],
                of_images: matrix(1),
            },
        }
    }

    #[test]
    fn a_student_comes_back_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let student = student();
        student.save(folder.path(), Path::new("/pictures")).unwrap();
        let stored = TrainedStudent::open(folder.path()).unwrap();
        assert_eq!(stored.student, student);
        assert_eq!(stored.images_root, Path::new("/pictures"));
    }

    #[test]
    fn files_that_do_not_fit_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let complaint = || TrainedStudent::open(folder.path()).unwrap_err().to_string();
        assert!(
            complaint().contains("no finished student"),
            "{}",
            complaint()
        );

        student()
            .save(folder.path(), Path::new("/pictures"))
            .unwrap();
        let path = folder.path().join(STUDENT_FILE);
        let json = std::fs::read_to_string(&path).unwrap();
        let cases = [
            ("\"eyas-xs\"", "\"eyas-xxl\"", "`eyas-xxl` is not known"),
            ("\"dim\": 8", "\"dim\": 9", "head.weight"),
            ("\"dim\": 8", "\"dim\": 99999999999", "is not in 1..="),
            ("eyas.student/1", "eyas.student/9", "`eyas.student/9`"),
            ("07070707", "0707", "is no image id"),
            ("\"crop\": 64", "\"crop\": 640", "preprocess"),
            ("\"seed\"", "\"sead\"", "seed"),
        ];
        for (from, to, expected) in cases {
            assert!(json.contains(from), "{from}");
            std::fs::write(&path, json.replacen(from, to, 1)).unwrap();
            assert!(complaint().contains(expected), "{to}: {}", complaint());
        }
        std::fs::write(&path, &json).unwrap();
        let other = Weights::default().to_bytes();
        std::fs::write(folder.path().join(WEIGHTS_FILE), other).unwrap();
        assert!(
            complaint().contains("student.safetensors"),
            "{}",
            complaint()
        );
    }
}
