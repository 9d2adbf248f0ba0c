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

/// The newest teacher version: projections may be whitened by pairs. Other teachers are
/// written as version 3, whose networks are in groups, or as version 2, which has no groups.
const VERSION: u16 = 4;

/// Sizes of the groups behind the header of version 2; since version 3.
type GroupedHeader = (Header<Whitening>, Vec<u8>);

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
        let by_pairs = matches!(header.whitening, Some(Whitening::Pairs(_)));
        if !by_pairs && self.groups.iter().all(|size| *size == 1) {
            return container::write(Kind::Teacher, 2, &header, &sections);
        }
        let version = if by_pairs { VERSION } else { 3 };
        let sizes = self.groups.iter().map(|size| *size as u8).collect();
        let header: GroupedHeader = (header, sizes);
        container::write(Kind::Teacher, version, &header, &sections)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, ReadError> {
        let container = Container::read(bytes, Kind::Teacher, VERSION)?;
        container.verify()?;
        let (header, groups) = read_header(&container)?;
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
            None => {
                let groups = groups.unwrap_or_else(|| vec![1; members.len()]);
                Self::from_grouped(header.name, members, groups, projection, header.manifest)?
            }
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

/// The header, and the sizes of the groups where its version says them.
fn read_header(
    container: &Container<'_>,
) -> Result<(Header<Whitening>, Option<Vec<usize>>), ContainerError> {
    if container.version >= 3 {
        let (header, sizes): GroupedHeader = container::read_header(container)?;
        let sizes = sizes.into_iter().map(usize::from).collect();
        return Ok((header, Some(sizes)));
    }
    if container.version == 2 {
        return Ok((container::read_header(container)?, None));
    }
    let old: Header<f32> = container::read_header(container)?;
    let header = Header {
        whitening: old.whitening.map(Whitening::Variance),
        name: old.name,
        dim: old.dim,
        space: old.space,
        manifest: old.manifest,
        members: old.members,
    };
    Ok((header, None))
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
    use crate::export::onnx;
    use crate::zoo;
    use eyas_device::encoder::Network;
    use eyas_shared::bundle::{Precision, probe_image};
    use eyas_shared::fingerprint::ImageId;
    use eyas_shared::preprocess::{self, Filter};

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
    fn a_whitening_by_pairs_is_of_the_newest_version() {
        let mut teacher = imported();
        let map = teacher.projection.as_mut().unwrap();
        map.whitening = Whitening::Pairs(7);
        let bytes = teacher.to_bytes();
        assert_eq!(bytes[8 + 2], 4, "the version");
        let again = Teacher::from_bytes(&bytes).unwrap();
        assert_eq!(
            again.projection.as_ref().unwrap().whitening,
            Whitening::Pairs(7)
        );
        assert_eq!(again.to_bytes(), bytes);
        assert_eq!(again.space(), imported().space());
        assert_eq!(imported().to_bytes()[8 + 2], 2, "the version of others");
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

    /// One network at these sides.
    fn at_sides(sides: &[u32]) -> Vec<Member> {
        let member = |&side: &u32| {
            let spec = PreprocessSpec {
                resize_shorter: side,
                crop: side,
                filter: Filter::Bilinear,
                mean: [0.25; 3],
                std: [0.5; 3],
            };
            let network = zoo::by_name("squeezenet1_1", 4).unwrap();
            let weights = zoo::init::random_weights(&network, 3);
            let onnx = onnx::write(&network, &weights, side, Precision::F32, &[]).unwrap();
            Member::new(format!("net {side}"), onnx, spec, None).unwrap()
        };
        sides.iter().map(member).collect()
    }

    #[test]
    fn one_network_at_several_sizes_is_the_direction_of_the_mean() {
        let (alone, group) = (at_sides(&[40]), at_sides(&[64, 48, 32]));
        let groups = vec![alone.clone(), group.clone()];
        let teacher = Teacher::from_groups("scales", groups, None, None).unwrap();
        assert_eq!((teacher.dim(), teacher.groups()), (8, &[1, 3][..]));
        let bytes = teacher.to_bytes();
        assert_eq!(bytes[8 + 2], 3, "the version");
        let again = Teacher::from_bytes(&bytes).unwrap();
        assert_eq!(again.to_bytes(), bytes);
        assert_eq!(again.space(), teacher.space());

        let image = probe_image(3);
        let of_member = |member: &Member| -> Vec<f64> {
            let pixels = preprocess::prepare(&image, member.preprocess());
            let network = Network::load(&member.onnx, member.preprocess().crop, None).unwrap();
            network
                .run(&pixels)
                .unwrap()
                .into_iter()
                .map(f64::from)
                .collect()
        };
        let direction = |values: Vec<f64>| -> Vec<f64> {
            let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
            values.into_iter().map(|x| x / norm).collect()
        };
        let of_group = { group.iter() }.map(|member| direction(of_member(member)));
        let sum = |sum: Vec<f64>, x: Vec<f64>| sum.iter().zip(x).map(|(a, b)| a + b).collect();
        let mean = direction(of_group.fold(vec![0.0; 4], sum));
        let expected = direction([direction(of_member(&alone[0])), mean].concat());
        let found = again.embed(&image).unwrap();
        for (a, b) in expected.iter().zip(&found) {
            assert!(
                (a - f64::from(*b)).abs() < 1e-6,
                "{expected:?} and {found:?}"
            );
        }
        // The same networks one after the other are another space, of another dimension.
        let flat = Teacher::from_onnx("scales", [alone, group].concat(), None, None).unwrap();
        assert_eq!(flat.dim(), 16);
        assert_eq!(flat.to_bytes()[8 + 2], 2, "the version without groups");
    }

    #[test]
    fn groups_that_do_not_fit_their_networks_are_refused() {
        let members = at_sides(&[32, 40]);
        for sizes in [vec![3], vec![1], vec![2, 0], vec![255, 255]] {
            let made = Teacher::from_grouped("x".into(), members.clone(), sizes, None, None);
            let message = made.err().unwrap().to_string();
            assert!(message.contains("do not make 2 networks"), "{message}");
        }
        let mut other = members.clone();
        other[1].dim = 5;
        let message = Teacher::from_groups("x", vec![other], None, None)
            .err()
            .unwrap();
        assert!(
            message.to_string().contains("can not be averaged"),
            "{message}"
        );
        // Whoever averages answers from a space of its own, whatever the projection.
        let teacher = |sizes| Teacher::from_grouped("x".into(), members.clone(), sizes, None, None);
        assert_ne!(
            teacher(vec![2]).unwrap().space(),
            teacher(vec![1, 1]).unwrap().space()
        );
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
