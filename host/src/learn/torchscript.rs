//! TorchScript networks as black boxes: pixels in, features out.
//!
//! A TorchScript file is a program for libtorch's interpreter, not data: one from a
//! stranger is run here with the rights of this process. It is used once, to embed the
//! images that a teacher of embeddings will know; boards and teacher files never hold one.

use std::path::{Path, PathBuf};

use eyas_shared::embedding::MAX_DIM;
use eyas_shared::files::{self, FileError};
use eyas_shared::preprocess::Pixels;
use tch::{CModule, IValue, Kind, TchError, Tensor};
use thiserror::Error;

use super::compute::Compute;
use super::network::values_of;

/// Largest TorchScript file that is read.
const MAX_BYTES: u64 = 8 << 30;

/// Why a TorchScript network can not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The file can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// libtorch can not load it.
    #[error(
        "`{}` is not a TorchScript network: {why}; `torch.jit.trace(model, image).save(path)` writes one, `torch.save` does not",
        path.display()
    )]
    Load {
        /// Which file.
        path: PathBuf,
        /// What libtorch said.
        why: String,
    },
    /// It stopped on an image.
    #[error("TorchScript network `{}` can not read an image of 3x{side}x{side}: {why}", path.display())]
    Run {
        /// Which file.
        path: PathBuf,
        /// Side of the image.
        side: u32,
        /// What libtorch said.
        why: String,
    },
    /// Its output is no vector.
    #[error(
        "TorchScript network `{}` gives {found} for one image; features are a tensor of 1 to {MAX_DIM} numbers",
        path.display()
    )]
    Output {
        /// Which file.
        path: PathBuf,
        /// What it gives.
        found: String,
    },
}

/// A network that libtorch's interpreter runs.
pub struct ScriptNetwork {
    module: CModule,
    path: PathBuf,
    compute: Compute,
}

impl ScriptNetwork {
    /// Loads a file that `torch.jit.save` wrote, in evaluation mode.
    ///
    /// # Errors
    /// If it can not be read or is anything else.
    pub fn load(path: &Path, compute: Compute) -> Result<Self, ScriptError> {
        let bytes = files::read(path, MAX_BYTES)?;
        let load = |err| ScriptError::Load {
            path: path.to_owned(),
            why: shortened(&err),
        };
        let mut module =
            CModule::load_data_on_device(&mut &bytes[..], compute.device).map_err(load)?;
        module.f_set_eval().map_err(load)?;
        Ok(Self {
            module,
            path: path.to_owned(),
            compute,
        })
    }

    /// What it gives for one image, flattened.
    ///
    /// # Errors
    /// If it stops, or gives anything but one tensor of 1 to [`MAX_DIM`] numbers.
    pub fn features(&self, pixels: &Pixels) -> Result<Vec<f32>, ScriptError> {
        let side = i64::from(pixels.side);
        let image = Tensor::from_slice(&pixels.values_chw)
            .view([1, 3, side, side])
            .to_device(self.compute.device);
        let output = tch::no_grad(|| self.module.forward_is(&[IValue::Tensor(image)]));
        let output = output.map_err(|err| ScriptError::Run {
            path: self.path.clone(),
            side: pixels.side,
            why: shortened(&err),
        })?;
        let wrong = |found: String| ScriptError::Output {
            path: self.path.clone(),
            found,
        };
        let IValue::Tensor(output) = output else {
            return Err(wrong("something else than one tensor".to_owned()));
        };
        let is_dense = !output.is_sparse() && output.is_floating_point();
        if !is_dense || !(1..=MAX_DIM).contains(&output.numel()) {
            let (kind, shape) = (output.kind(), output.size());
            return Err(wrong(format!("{kind:?} numbers of shape {shape:?}")));
        }
        Ok(values_of(&output.to_kind(Kind::Float)))
    }
}

/// What libtorch said, without its stack: the line that names the error, or the first.
fn shortened(err: &TchError) -> String {
    let text = match err {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    let said = text
        .split("\nException raised from")
        .next()
        .unwrap_or_default();
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.clone().next().unwrap_or("no reason given");
    let named = lines.rfind(|line| line.contains("Error:"));
    named.unwrap_or(first).trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use eyas_shared::embedding::l2_normalize;
    use eyas_shared::preprocess::{self, Filter, PreprocessSpec};

    use super::*;
    use crate::cli;
    use crate::data;
    use crate::data::tests::images;
    use crate::embeddings::cache::embed_images;
    use crate::embeddings::images::read_image;
    use crate::learn::ComputeChoice;
    use crate::teacher::Teacher;

    const SIDE: u32 = 8;

    fn pixels() -> Pixels {
        let n = 3 * SIDE * SIDE;
        Pixels {
            side: SIDE,
            values_chw: (0..n).map(|i| i as f32 / n as f32).collect(),
        }
    }

    /// A file of what `network` does with an image.
    fn traced(path: &Path, mut network: impl FnMut(&[Tensor]) -> Vec<Tensor>) {
        let image = Tensor::zeros(
            [1, 3, i64::from(SIDE), i64::from(SIDE)],
            tch::kind::FLOAT_CPU,
        );
        let module = CModule::create_by_tracing("Network", "forward", &[image], &mut network);
        module.unwrap().save(path).unwrap();
    }

    fn load(path: &Path) -> Result<ScriptNetwork, ScriptError> {
        ScriptNetwork::load(path, Compute::choose(ComputeChoice::Cpu, Some(1)).unwrap())
    }

    #[test]
    fn a_traced_network_gives_its_features() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("means.pt");
        traced(&path, |inputs| {
            vec![inputs[0].mean_dim([2, 3].as_slice(), false, Kind::Float)]
        });
        let network = load(&path).unwrap();
        let found = network.features(&pixels()).unwrap();
        let planes = pixels().values_chw;
        let area = (SIDE * SIDE) as usize;
        assert_eq!(found.len(), 3);
        for (found, plane) in found.iter().zip(planes.chunks_exact(area)) {
            let mean = plane.iter().sum::<f32>() / area as f32;
            assert!((found - mean).abs() < 1e-6, "{found} {mean}");
        }
    }

    /// The interpreter adds in the order of the network itself, or in another; on components
    /// of unit vectors.
    const SUMMATION: f32 = 1e-6;

    #[test]
    fn an_imported_teacher_embeds_as_its_network_does() {
        let data_folder = images(&["ale/1.jpg", "ale/2.jpg", "bock/1.jpg"]);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let numbers: Vec<f32> = (0..4 * 27).map(|i| (i * 37 % 11) as f32 - 4.0).collect();
        let weight = Tensor::from_slice(&numbers).view([4, 3, 3, 3]);
        let bias = Tensor::from_slice(&[1.0_f32, -2.0, 3.0, 0.5]);
        let network = |inputs: &[Tensor]| {
            let map = inputs[0].conv2d(&weight, Some(&bias), [2, 2], [1, 1], [1, 1], 1);
            vec![map.relu().mean_dim([2, 3].as_slice(), false, Kind::Float)]
        };
        traced(Path::new(&at("network.pt")), network);
        let data_path = data_folder.path().display().to_string();
        let words = ["teacher", "import", &at("network.pt"), "--data", &data_path];
        let pixels = ["--resize", "10", "--crop", "8", "--mean", "0.5,0.4,0.3"];
        let more = [
            "--std",
            "0.2,0.25,0.5",
            "--compute",
            "cpu",
            "--threads",
            "1",
        ];
        let rest = ["--no-projection", "--out", &at("out.teacher")];
        let answer = cli::run_words(&[&words[..], &pixels, &more, &rest].concat());
        assert_eq!(answer.unwrap(), cli::Answer::Yes);

        let spec = PreprocessSpec {
            resize_shorter: 10,
            crop: SIDE,
            filter: Filter::Bilinear,
            mean: [0.5, 0.4, 0.3],
            std: [0.2, 0.25, 0.5],
        };
        let manifest = data::open(data_folder.path()).unwrap();
        let teacher = Teacher::open(Path::new(&at("out.teacher"))).unwrap();
        let embedded = embed_images(&teacher, &manifest, None, &|| ())
            .unwrap()
            .images;
        assert_eq!((manifest.images.len(), embedded.dim()), (3, 4));
        for image in &manifest.images {
            let photograph = read_image(&manifest, image).unwrap();
            let pixels = preprocess::prepare(&photograph, &spec).values_chw;
            let side = i64::from(SIDE);
            let output = network(&[Tensor::from_slice(&pixels).view([1, 3, side, side])]);
            let mut expected = values_of(&output[0]);
            assert!(l2_normalize(&mut expected) > 0.1);
            let found = embedded.get(&image.id).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < SUMMATION, "{found} {expected}");
            }
        }
        let rows: Vec<&[f32]> = embedded.embeddings().rows().collect();
        assert!(rows[0] != rows[1] && rows[1] != rows[2], "{rows:?}");
    }

    #[test]
    fn what_is_no_network_for_images_is_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.pt");
        let refused = || match load(&path) {
            Ok(network) => network.features(&pixels()).unwrap_err().to_string(),
            Err(err) => err.to_string(),
        };
        assert!(refused().contains("bad.pt"));
        for bytes in [&b""[..], b"no network", b"PK\x03\x04 and then nothing"] {
            std::fs::write(&path, bytes).unwrap();
            let message = refused();
            assert!(message.contains("torch.jit.trace"), "{message}");
            assert!(!message.contains("frame #"), "{message}");
        }
        // A map is too much, a matrix of another inner extent stops the interpreter.
        traced(&path, |inputs| vec![inputs[0].repeat([1, 1, 64, 64])]);
        let message = refused();
        assert!(message.contains("[1, 3, 512, 512]"), "{message}");
        traced(&path, |inputs| {
            let weight = Tensor::ones([3 * 64, 2], tch::kind::FLOAT_CPU);
            vec![inputs[0].view([1, 3 * 64]).matmul(&weight)]
        });
        let whole = std::fs::read(&path).unwrap();
        let small = Pixels {
            side: 4,
            values_chw: vec![0.5; 48],
        };
        let message = load(&path).unwrap().features(&small).unwrap_err();
        let message = message.to_string();
        assert!(message.contains("3x4x4"), "{message}");
        assert!(!message.contains("frame #"), "{message}");
        for length in (0..whole.len()).step_by(97) {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(load(&path).is_err(), "{length} bytes");
        }
    }
}
