//! The teacher's file.

use eyas_shared::container::{self, Container, ContainerError, Kind, Tag};
use eyas_shared::embedding::{Embeddings, MAX_DIM};
use eyas_shared::fingerprint::{Fingerprint, SpaceId};
use eyas_shared::preprocess::PreprocessSpec;
use eyas_shared::quant;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::projection::{Projection, Whitening};
use super::{MAX_MEMBERS, Member, Teacher, TeacherError, contradiction};
use crate::embeddings::EmbeddedImages;

/// The newest teacher version, and the one that is written.
pub(super) const VERSION: u16 = 2;

const ONNX: Tag = *b"ONNX";
const MEAN: Tag = *b"MEAN";
const MATRIX: Tag = *b"PROJ";
const IMPORTED: Tag = *b"EMBD";

/// `W` says how the projection was whitened: since version 2 a [`Whitening`], before that
/// the exponent alone.
#[derive(Serialize, Deserialize)]
struct Header<W> {
    name: String,
    dim: u32,
    space: SpaceId,
    manifest: Option<Fingerprint>,
    /// Of the projection, if there is one.
    whitening: Option<W>,
    members: Vec<MemberHeader>,
}

#[derive(Serialize, Deserialize)]
struct MemberHeader {
    name: String,
    onnx: Fingerprint,
    preprocess: PreprocessSpec,
    output: Option<String>,
    dim: u32,
    multiply_adds: u64,
}

#[derive(Debug, Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Teacher(#[from] TeacherError),
}

impl Teacher {
    /// The file's bytes; equal teachers give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let members = self.members.iter().map(|member| MemberHeader {
            name: member.name.clone(),
            onnx: Fingerprint::of_bytes(&member.onnx),
            preprocess: member.preprocess.clone(),
            output: member.output.clone(),
            dim: member.dim as u32,
            multiply_adds: member.multiply_adds,
        });
        let header = Header {
            name: self.name.clone(),
            dim: self.dim as u32,
            space: self.space,
            manifest: self.manifest,
            whitening: self.projection.as_ref().map(|map| map.whitening),
            members: members.collect(),
        };
        let mut owned: Vec<(Tag, Vec<u8>)> = Vec::new();
        if let Some(map) = &self.projection {
            owned.push((MEAN, quant::f32_bytes(&map.mean)));
            owned.push((MATRIX, quant::f32_bytes(map.matrix.values())));
        }
        if let Some(images) = &self.imported {
            owned.push((IMPORTED, images.to_bytes()));
        }
        let networks = self.members.iter().map(|member| (ONNX, &member.onnx[..]));
        let others = owned.iter().map(|(tag, data)| (*tag, &data[..]));
        let sections: Vec<(Tag, &[u8])> = networks.chain(others).collect();
        container::write(Kind::Teacher, VERSION, &header, &sections)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ReadError> {
        let container = Container::read(bytes, Kind::Teacher, VERSION)?;
        container.verify()?;
        let header = read_header(&container)?;
        let networks: Vec<&[u8]> = container.sections_with(ONNX).collect();
        if networks.len() != header.members.len() || networks.len() > MAX_MEMBERS {
            let (named, found) = (header.members.len(), networks.len());
            return Ok(contradiction(format!(
                "its header names {named} networks, {found} are there"
            ))?);
        }
        let members: Vec<Member> = header
            .members
            .into_iter()
            .zip(networks)
            .map(|(member, onnx)| member.with(onnx))
            .collect::<Result<_, _>>()?;
        let projection = header
            .whitening
            .map(|whitening| read_projection(&container, header.dim, whitening))
            .transpose()?;
        let imported = container.sections_with(IMPORTED).next();
        let imported = imported.map(EmbeddedImages::from_bytes).transpose()?;
        let teacher = match imported {
            Some(images) if members.is_empty() => {
                Self::from_embeddings(header.name, images, projection, header.manifest)?
            }
            Some(_) => return Ok(contradiction("it has both networks and embeddings")?),
            None => Self::from_onnx(header.name, members, projection, header.manifest)?,
        };
        if teacher.space != header.space || teacher.dim != header.dim as usize {
            let (space, dim) = (teacher.space, teacher.dim);
            return Ok(contradiction(format!(
                "its header names space {} with {} dimensions, its content has {space} with {dim}",
                header.space, header.dim
            ))?);
        }
        Ok(teacher)
    }
}

impl MemberHeader {
    fn with(self, onnx: &[u8]) -> Result<Member, TeacherError> {
        let found = Fingerprint::of_bytes(onnx);
        if found != self.onnx {
            return contradiction(format!(
                "network `{}` has fingerprint {}, its header names {}",
                self.name,
                found.short(),
                self.onnx.short()
            ));
        }
        if let Some(fault) = self.preprocess.fault() {
            return contradiction(format!("pixels of network `{}`: {fault}", self.name));
        }
        let dim = self.dim as usize;
        if !(1..=MAX_DIM).contains(&dim) {
            return contradiction(format!("network `{}` gives {dim} features", self.name));
        }
        Ok(Member {
            name: self.name,
            onnx: onnx.to_vec(),
            preprocess: self.preprocess,
            output: self.output,
            dim,
            multiply_adds: self.multiply_adds,
        })
    }
}

fn read_header(container: &Container<'_>) -> Result<Header<Whitening>, ContainerError> {
    if container.version >= 2 {
        return container::read_header(container);
    }
    let old: Header<f32> = container::read_header(container)?;
    Ok(Header {
        whitening: old.whitening.map(Whitening::Variance),
        name: old.name,
        dim: old.dim,
        space: old.space,
        manifest: old.manifest,
        members: old.members,
    })
}

fn read_projection(
    container: &Container<'_>,
    dim: u32,
    whitening: Whitening,
) -> Result<Projection, ReadError> {
    let mean = quant::f32_from_bytes(container.section(MEAN)?);
    let values = quant::f32_from_bytes(container.section(MATRIX)?);
    let n_values = values.len();
    let finite = mean.iter().chain(&values).all(|x| x.is_finite());
    match Embeddings::from_values(mean.len(), values) {
        Some(matrix) if finite && matrix.n_rows() == dim as usize => Ok(Projection {
            mean,
            matrix,
            whitening,
        }),
        _ => Ok(contradiction(format!(
            "a projection of {n_values} values does not map {} features to {dim} dimensions",
            mean.len()
        ))?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::fingerprint::ImageId;

    fn imported() -> Teacher {
        let mut images = EmbeddedImages::new(SpaceId(Fingerprint([1; 32])), 3);
        images.insert(ImageId([1; 16]), &[3.0, 4.0, 0.0]);
        images.insert(ImageId([2; 16]), &[0.0, 4.0, 1.0]);
        let map = Projection {
            mean: vec![0.0, 0.5, 0.0],
            matrix: Embeddings::from_values(3, vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0]).unwrap(),
            whitening: Whitening::Variance(0.5),
        };
        Teacher::from_embeddings("elsewhere", images, Some(map), None).unwrap()
    }

    #[test]
    fn a_teacher_comes_back_from_its_bytes() {
        let teacher = imported();
        let again = Teacher::from_bytes(&teacher.to_bytes()).unwrap();
        assert_eq!(again.space(), teacher.space());
        assert_eq!((again.name(), again.dim()), ("elsewhere", 2));
        assert_eq!(again.to_bytes(), teacher.to_bytes());
        let features = again.imported().unwrap().get(&ImageId([1; 16])).unwrap();
        assert_eq!(again.embedding_of([features]).unwrap(), [1.0, 0.0]);
    }

    #[test]
    fn a_file_of_the_first_version_is_read() {
        let teacher = imported();
        let header = Header {
            name: teacher.name.clone(),
            dim: teacher.dim as u32,
            space: teacher.space,
            manifest: None,
            whitening: Some(0.5_f32),
            members: Vec::new(),
        };
        let map = teacher.projection.as_ref().unwrap();
        let sections = [
            (MEAN, quant::f32_bytes(&map.mean)),
            (MATRIX, quant::f32_bytes(map.matrix.values())),
            (IMPORTED, teacher.imported.as_ref().unwrap().to_bytes()),
        ];
        let sections = sections.each_ref().map(|(tag, data)| (*tag, &data[..]));
        let old = container::write(Kind::Teacher, 1, &header, &sections);
        let read = Teacher::from_bytes(&old).unwrap();
        assert_eq!(read.to_bytes(), teacher.to_bytes());
    }

    #[test]
    fn another_projection_is_another_space() {
        let teacher = imported();
        let (space, plain) = (
            teacher.space(),
            imported().with_projection(None, None).unwrap(),
        );
        assert_ne!(plain.space(), space);
        assert_eq!(plain.dim(), 3);
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let bytes = imported().to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            assert!(Teacher::from_bytes(&damaged).is_err(), "byte {at}");
            assert!(Teacher::from_bytes(&bytes[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn a_teacher_of_embeddings_says_that_it_has_no_network() {
        let teacher = imported();
        let message = teacher.networks().err().unwrap().to_string();
        assert!(
            message.contains("2 images") && message.contains("ONNX"),
            "{message}"
        );
    }
}
