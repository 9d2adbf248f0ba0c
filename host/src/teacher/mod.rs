//! The teacher: the large model whose embeddings make the gallery and teach the student.
//!
//! A teacher is one file: networks as ONNX, each with the pixels it reads, whose outputs
//! are scaled to length 1 and put one after the other, then an optional [`Projection`],
//! then length 1 again. Networks that are one at several sizes are a group: their outputs of
//! length 1 are averaged first, and the mean is scaled to length 1. A teacher may instead hold embeddings that were made elsewhere; it
//! then knows those images and no others. Training a teacher is the business of `learn`;
//! embedding whole data sets, once, that of [`crate::embeddings::cache`].

mod file;
pub mod npy;
pub mod npz;
pub mod projection;
pub mod whitening;

use std::path::Path;
use std::sync::OnceLock;

use eyas_device::encoder::{EncodeError, Network};
use eyas_shared::container::ContainerError;
use eyas_shared::embedding::{MAX_DIM, MIN_NORM, l2_normalize};
use eyas_shared::files::{self, FileError};
use eyas_shared::fingerprint::{Fingerprint, Fingerprinter, SpaceId};
use eyas_shared::preprocess::{self, Pixels, PreprocessSpec, RgbImage};
use eyas_shared::quant;
use thiserror::Error;

use crate::embeddings::EmbeddedImages;
use projection::Projection;

/// Largest teacher file that is read.
const MAX_BYTES: u64 = 8 << 30;

/// Most networks in one teacher.
pub const MAX_MEMBERS: usize = 16;

/// One network of a teacher.
#[derive(Clone, Debug)]
pub struct Member {
    name: String,
    onnx: Vec<u8>,
    preprocess: PreprocessSpec,
    output: Option<String>,
    dim: usize,
    multiply_adds: u64,
}

/// A teacher, whole and consistent.
pub struct Teacher {
    name: String,
    members: Vec<Member>,
    /// How many members in a row are averaged; they add up to all.
    groups: Vec<usize>,
    imported: Option<EmbeddedImages>,
    projection: Option<Projection>,
    manifest: Option<Fingerprint>,
    dim: usize,
    space: SpaceId,
    networks: OnceLock<Vec<Network>>,
}

/// Why a teacher can not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TeacherError {
    /// Its file can not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its file is not whole, or not a teacher.
    #[error("teacher `{path}`: {source}")]
    Container {
        /// Which file.
        path: String,
        /// What does not fit.
        source: ContainerError,
    },
    /// Its parts contradict each other.
    #[error("the teacher contradicts itself: {what}")]
    Contradiction {
        /// How.
        what: String,
    },
    /// A network can not be loaded or run.
    #[error("network `{member}` of the teacher: {source}")]
    Network {
        /// Which.
        member: String,
        /// Why.
        source: EncodeError,
    },
    /// It has no network.
    #[error(
        "teacher `{teacher}` was imported as embeddings of {n_images} images and can not embed others; import its networks as ONNX for that"
    )]
    NoNetwork {
        /// Its name.
        teacher: String,
        /// Images that it knows.
        n_images: usize,
    },
    /// An output that points nowhere.
    #[error("network `{member}` of the teacher gives {what} for this image")]
    NoDirection {
        /// Which, or `projection`.
        member: String,
        /// What it gives.
        what: &'static str,
    },
}

fn contradiction<T>(what: impl Into<String>) -> Result<T, TeacherError> {
    Err(TeacherError::Contradiction { what: what.into() })
}

impl Member {
    /// Loads a network once to learn its dimension and cost. `output` names one of several
    /// outputs; without it the first is taken.
    ///
    /// # Errors
    /// If the pixels make no sense or the network can not be built.
    pub fn new(
        name: impl Into<String>,
        onnx: Vec<u8>,
        preprocess: PreprocessSpec,
        output: Option<String>,
    ) -> Result<Self, TeacherError> {
        let name = name.into();
        if let Some(fault) = preprocess.fault() {
            return contradiction(format!("pixels of network `{name}`: {fault}"));
        }
        let network = load(&name, &onnx, &preprocess, output.as_deref())?;
        Ok(Self {
            dim: network.dim(),
            multiply_adds: network.multiply_adds(),
            name,
            onnx,
            preprocess,
            output,
        })
    }

    /// Name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pixels that it reads.
    #[must_use]
    pub fn preprocess(&self) -> &PreprocessSpec {
        &self.preprocess
    }

    /// Number of features.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Multiply-adds for one image.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        self.multiply_adds
    }

    /// Names its features: equal members give equal features.
    #[must_use]
    pub fn feature_space(&self) -> SpaceId {
        let weights = self.weights_fingerprint();
        let none = Projection::none_fingerprint();
        SpaceId::of_teacher(
            weights,
            self.preprocess.fingerprint(),
            none,
            self.dim as u32,
        )
    }

    fn weights_fingerprint(&self) -> Fingerprint {
        Fingerprinter::new("eyas teacher member 1")
            .field("onnx", &Fingerprint::of_bytes(&self.onnx).0)
            .field("output", self.output.as_deref().unwrap_or("").as_bytes())
            .finish()
    }
}

fn load(
    name: &str,
    onnx: &[u8],
    preprocess: &PreprocessSpec,
    output: Option<&str>,
) -> Result<Network, TeacherError> {
    Network::load(onnx, preprocess.crop, output).map_err(|source| TeacherError::Network {
        member: name.to_owned(),
        source,
    })
}

/// Features of groups of networks, one vector each.
fn n_features(members: &[Member], groups: &[usize]) -> usize {
    let mut at = 0;
    let mut sum = 0;
    for size in groups {
        sum += members[at].dim;
        at += size;
    }
    sum
}

/// The direction of the mean of named unit vectors; one alone stays as it is.
fn mean_direction(mut units: Vec<(&str, Vec<f32>)>) -> Result<Vec<f32>, TeacherError> {
    let Some((name, mut sum)) = units.pop() else {
        return Ok(Vec::new());
    };
    if units.is_empty() {
        return Ok(sum);
    }
    for (_, other) in units {
        sum.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
    }
    unit(name, sum)
}

/// Scales to length 1 what a network or projection gave.
fn unit(member: &str, mut values: Vec<f32>) -> Result<Vec<f32>, TeacherError> {
    let fault = |what| TeacherError::NoDirection {
        member: member.to_owned(),
        what,
    };
    if !values.iter().all(|x| x.is_finite()) {
        return Err(fault("values that are not finite"));
    }
    if l2_normalize(&mut values) < MIN_NORM {
        return Err(fault("only zeros"));
    }
    Ok(values)
}

impl Teacher {
    /// A teacher of networks. `manifest` names the images that `projection` was fitted on,
    /// or the networks were trained on.
    ///
    /// # Errors
    /// If there is no member, or the projection reads another number of features.
    pub fn from_onnx(
        name: impl Into<String>,
        members: Vec<Member>,
        projection: Option<Projection>,
        manifest: Option<Fingerprint>,
    ) -> Result<Self, TeacherError> {
        let groups = members.into_iter().map(|member| vec![member]).collect();
        Self::from_groups(name, groups, projection, manifest)
    }

    /// A teacher of groups of networks whose unit outputs are averaged: descriptors of several
    /// scales (Radenović, Tolias, Chum; TPAMI 2019), with the exponent 1 for their mean.
    ///
    /// # Errors
    /// As [`from_onnx`](Self::from_onnx), or if the networks of a group differ in the number
    /// of their features.
    pub fn from_groups(
        name: impl Into<String>,
        groups: Vec<Vec<Member>>,
        projection: Option<Projection>,
        manifest: Option<Fingerprint>,
    ) -> Result<Self, TeacherError> {
        let sizes = groups.iter().map(Vec::len).collect();
        let members = groups.into_iter().flatten().collect();
        Self::from_grouped(name.into(), members, sizes, projection, manifest)
    }

    /// The same with the sizes of the groups beside the members.
    fn from_grouped(
        name: String,
        members: Vec<Member>,
        groups: Vec<usize>,
        projection: Option<Projection>,
        manifest: Option<Fingerprint>,
    ) -> Result<Self, TeacherError> {
        if members.is_empty() || members.len() > MAX_MEMBERS {
            let n = members.len();
            return contradiction(format!("{n} networks are not in 1..={MAX_MEMBERS}"));
        }
        let n_grouped = { groups.iter() }.try_fold(0_usize, |n, size| n.checked_add(*size));
        if groups.contains(&0) || n_grouped != Some(members.len()) {
            let n = members.len();
            return contradiction(format!("groups of {groups:?} do not make {n} networks"));
        }
        let mut rest = &members[..];
        for &size in &groups {
            let (group, after) = rest.split_at(size);
            rest = after;
            if let Some(other) = group.iter().find(|member| member.dim != group[0].dim) {
                return contradiction(format!(
                    "network `{}` gives {} features, `{}` gives {}: they can not be averaged",
                    group[0].name, group[0].dim, other.name, other.dim
                ));
            }
        }
        Self::assemble(name, members, groups, None, projection, manifest)
    }

    /// A teacher that only knows the embeddings of some images.
    ///
    /// # Errors
    /// If there are none, or the projection reads another number of features.
    pub fn from_embeddings(
        name: impl Into<String>,
        imported: EmbeddedImages,
        projection: Option<Projection>,
        manifest: Option<Fingerprint>,
    ) -> Result<Self, TeacherError> {
        Self::assemble(
            name.into(),
            Vec::new(),
            Vec::new(),
            Some(imported),
            projection,
            manifest,
        )
    }

    fn assemble(
        name: String,
        members: Vec<Member>,
        groups: Vec<usize>,
        imported: Option<EmbeddedImages>,
        projection: Option<Projection>,
        manifest: Option<Fingerprint>,
    ) -> Result<Self, TeacherError> {
        let n_features = match &imported {
            Some(images) if images.n_images() == 0 => return contradiction("it holds nothing"),
            Some(images) => images.dim(),
            None => n_features(&members, &groups),
        };
        if let Some(projection) = &projection
            && projection.mean.len() != n_features
        {
            let reads = projection.mean.len();
            return contradiction(format!(
                "the projection reads {reads} features, the networks give {n_features}"
            ));
        }
        let dim = projection.as_ref().map_or(n_features, Projection::dim);
        if !(1..=MAX_DIM).contains(&dim) {
            return contradiction(format!("dimension {dim} is not in 1..={MAX_DIM}"));
        }
        let (weights, pixels) = match &imported {
            Some(images) => {
                let print = Fingerprinter::new("eyas imported embeddings 1");
                let ids: Vec<u8> = images.ids().iter().flat_map(|id| id.0).collect();
                let rows = quant::f32_bytes(images.embeddings().values());
                let none = Fingerprinter::new("eyas pixels unknown").finish();
                (print.field("ids", &ids).field("rows", &rows).finish(), none)
            }
            None => members.iter().fold(
                (Fingerprint([0; 32]), Fingerprint([0; 32])),
                |(weights, pixels), member| {
                    let both = |purpose: &str, so_far: Fingerprint, next: Fingerprint| {
                        Fingerprinter::new(purpose)
                            .field("before", &so_far.0)
                            .field("member", &next.0)
                            .finish()
                    };
                    (
                        both(
                            "eyas teacher weights 1",
                            weights,
                            member.weights_fingerprint(),
                        ),
                        both(
                            "eyas teacher pixels 1",
                            pixels,
                            member.preprocess.fingerprint(),
                        ),
                    )
                },
            ),
        };
        // Teachers without averages have the spaces that they had before there were any.
        let weights = if groups.iter().all(|size| *size == 1) {
            weights
        } else {
            let sizes: Vec<u8> = groups.iter().map(|size| *size as u8).collect();
            Fingerprinter::new("eyas teacher groups 1")
                .field("networks", &weights.0)
                .field("sizes", &sizes)
                .finish()
        };
        let map = projection
            .as_ref()
            .map_or_else(Projection::none_fingerprint, Projection::fingerprint);
        Ok(Self {
            space: SpaceId::of_teacher(weights, pixels, map, dim as u32),
            name,
            members,
            groups,
            imported,
            projection,
            manifest,
            dim,
            networks: OnceLock::new(),
        })
    }

    /// Reads a teacher's file and checks all of it.
    ///
    /// # Errors
    /// If it can not be read or anything in it does not fit.
    pub fn open(path: &Path) -> Result<Self, TeacherError> {
        let bytes = files::read(path, MAX_BYTES)?;
        Self::from_bytes(&bytes).map_err(|err| match err {
            file::ReadError::Container(source) => TeacherError::Container {
                path: path.display().to_string(),
                source,
            },
            file::ReadError::Teacher(err) => err,
        })
    }

    /// Name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names the space of its embeddings.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// Components of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Its networks; none if it was imported as embeddings.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many of its networks in a row are averaged into one vector of features: 1 for one
    /// that stands alone.
    #[must_use]
    pub fn groups(&self) -> &[usize] {
        &self.groups
    }

    /// Number of features that a projection reads.
    #[must_use]
    pub fn n_features(&self) -> usize {
        let of_networks = || n_features(&self.members, &self.groups);
        self.imported
            .as_ref()
            .map_or_else(of_networks, EmbeddedImages::dim)
    }

    /// Features of the images it was imported with, not projected.
    #[must_use]
    pub fn imported(&self) -> Option<&EmbeddedImages> {
        self.imported.as_ref()
    }

    /// The map behind the networks.
    #[must_use]
    pub fn projection(&self) -> Option<&Projection> {
        self.projection.as_ref()
    }

    /// The images that it was fitted or trained on.
    #[must_use]
    pub fn manifest(&self) -> Option<Fingerprint> {
        self.manifest
    }

    /// Multiply-adds of its networks for one image; the projection's are included.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        let networks: u64 = self.members.iter().map(|member| member.multiply_adds).sum();
        let map = self.projection.as_ref();
        networks + map.map_or(0, |map| (map.mean.len() * map.dim()) as u64)
    }

    /// Its networks, built. They are built on the first call and then kept.
    ///
    /// # Errors
    /// If one can not be built, or it has none.
    pub fn networks(&self) -> Result<&[Network], TeacherError> {
        if let Some(images) = &self.imported {
            return Err(TeacherError::NoNetwork {
                teacher: self.name.clone(),
                n_images: images.n_images(),
            });
        }
        if let Some(networks) = self.networks.get() {
            return Ok(networks);
        }
        let build = |member: &Member| {
            let output = member.output.as_deref();
            let network = load(&member.name, &member.onnx, &member.preprocess, output)?;
            if network.dim() != member.dim {
                return contradiction(format!(
                    "network `{}` gives {} features, its header says {}",
                    member.name,
                    network.dim(),
                    member.dim
                ));
            }
            Ok(network)
        };
        let built: Vec<Network> = self.members.iter().map(build).collect::<Result<_, _>>()?;
        Ok(self.networks.get_or_init(|| built))
    }

    /// What one of its networks gives for an image, as it comes.
    ///
    /// # Errors
    /// If the network fails, or gives values that are not finite or all zero.
    ///
    /// # Panics
    /// If there is no such member.
    pub fn features(&self, member_idx: usize, image: &RgbImage) -> Result<Vec<f32>, TeacherError> {
        let pixels = preprocess::prepare(image, &self.members[member_idx].preprocess);
        self.features_of_pixels(member_idx, &pixels)
    }

    fn features_of_pixels(
        &self,
        member_idx: usize,
        pixels: &Pixels,
    ) -> Result<Vec<f32>, TeacherError> {
        let (network, member) = (&self.networks()?[member_idx], &self.members[member_idx]);
        let features = network
            .run(pixels)
            .map_err(|source| TeacherError::Network {
                member: member.name.clone(),
                source,
            })?;
        unit(&member.name, features.clone())?;
        Ok(features)
    }

    /// The embedding that follows from the features of all members, in order.
    ///
    /// # Errors
    /// If a part of it has no direction.
    pub fn embedding_of<'f>(
        &self,
        features: impl IntoIterator<Item = &'f [f32]>,
    ) -> Result<Vec<f32>, TeacherError> {
        let mut all = self.concatenated(features)?;
        if let Some(projection) = &self.projection {
            all = projection.apply(&all);
        }
        unit("projection", all)
    }

    /// Features of all members, each scaled to length 1, those of a group averaged and scaled
    /// again: what a projection reads.
    ///
    /// # Errors
    /// If those of a member, or their mean, have no direction.
    pub fn concatenated<'f>(
        &self,
        features: impl IntoIterator<Item = &'f [f32]>,
    ) -> Result<Vec<f32>, TeacherError> {
        let mut all = Vec::new();
        let mut features = features.into_iter();
        if self.imported.is_some() {
            for features in features {
                all.extend(unit(&self.name, features.to_vec())?);
            }
            return Ok(all);
        }
        let mut members = self.members.iter();
        for &size in &self.groups {
            let group = members.by_ref().take(size).zip(features.by_ref());
            let units =
                group.map(|(member, it)| Ok((&*member.name, unit(&member.name, it.to_vec())?)));
            let units: Vec<(&str, Vec<f32>)> = units.collect::<Result<_, TeacherError>>()?;
            all.extend(mean_direction(units)?);
        }
        Ok(all)
    }

    /// The embedding of one image, of length 1.
    ///
    /// # Errors
    /// If the teacher has no networks, one fails, or the result has no direction.
    pub fn embed(&self, image: &RgbImage) -> Result<Vec<f32>, TeacherError> {
        self.networks()?;
        let features: Vec<Vec<f32>> = (0..self.members.len())
            .map(|member_idx| self.features(member_idx, image))
            .collect::<Result<_, _>>()?;
        self.embedding_of(features.iter().map(Vec::as_slice))
    }

    /// The embedding, of length 1, of something that is no whole image: `pixels` gives what
    /// each network reads of it.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub fn embed_pixels(
        &self,
        pixels: &dyn Fn(&PreprocessSpec) -> Pixels,
    ) -> Result<Vec<f32>, TeacherError> {
        self.networks()?;
        let features: Vec<Vec<f32>> = self
            .members
            .iter()
            .enumerate()
            .map(|(idx, member)| self.features_of_pixels(idx, &pixels(&member.preprocess)))
            .collect::<Result<_, _>>()?;
        self.embedding_of(features.iter().map(Vec::as_slice))
    }

    /// The same networks with another map behind them.
    ///
    /// # Errors
    /// If the map reads another number of features.
    pub fn with_projection(
        self,
        projection: Option<Projection>,
        manifest: Option<Fingerprint>,
    ) -> Result<Self, TeacherError> {
        let Self {
            name,
            members,
            groups,
            imported,
            ..
        } = self;
        Self::assemble(name, members, groups, imported, projection, manifest)
    }
}
