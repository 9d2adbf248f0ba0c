//! CPU or GPU: chosen once, at the start, and said.

use std::path::PathBuf;

use tch::{Cuda, Device, Kind};
use thiserror::Error;

use super::run::LearnError;
use crate::recipe::Precision;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComputeChoice {
    /// A GPU if there is one.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, or an error.
    Gpu,
}

/// Why there is no GPU for whoever asked for one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ComputeError {
    /// This libtorch computes on CPUs only.
    #[error("a GPU is asked for, but this libtorch has no GPU part (libtorch_cuda.so)")]
    NoLibrary,
    /// Its GPU part is there and does not load.
    #[error("a GPU is asked for, but libtorch's GPU part does not load: {why}")]
    Library {
        /// What the system's loader said.
        why: String,
    },
    /// There is no GPU, or no driver for it.
    #[error("a GPU is asked for, but libtorch finds none")]
    NoGpu,
}

/// Where tensors live.
#[derive(Clone, Copy, Debug)]
pub struct Compute {
    pub(super) device: Device,
    n_threads: i32,
}

impl Compute {
    /// Chooses, and sets the number of CPU threads: the same number gives the same bits.
    ///
    /// # Errors
    /// If a GPU was asked for and there is none that libtorch can use.
    pub fn choose(choice: ComputeChoice, n_threads: Option<usize>) -> Result<Self, ComputeError> {
        let cuda_library = open_cuda_library();
        let has_gpu = choice != ComputeChoice::Cpu && Cuda::is_available();
        if choice == ComputeChoice::Gpu && !has_gpu {
            return Err(match cuda_library {
                None => ComputeError::NoLibrary,
                Some(Err(why)) => ComputeError::Library { why },
                Some(Ok(())) => ComputeError::NoGpu,
            });
        }
        let n_threads = n_threads
            .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
            .unwrap_or(1) as i32;
        tch::set_num_threads(n_threads);
        keep_freed_memory();
        let device = if has_gpu {
            Device::Cuda(0)
        } else {
            Device::Cpu
        };
        // Kernels that are chosen by timing them differ from run to run.
        Cuda::cudnn_set_benchmark(false);
        Ok(Self { device, n_threads })
    }
}

impl Compute {
    /// Threads of the CPU, if that is what computes.
    #[must_use]
    pub fn n_cpu_threads(self) -> Option<usize> {
        (self.device == Device::Cpu).then_some(self.n_threads.max(1) as usize)
    }

    /// The kind of number in which convolutions compute.
    ///
    /// # Errors
    /// If this device has no such arithmetic.
    pub(super) fn kind_for(self, precision: Precision) -> Result<Kind, LearnError> {
        match (precision, self.device) {
            (Precision::F32, _) => Ok(Kind::Float),
            (Precision::Bf16, _) => Ok(Kind::BFloat16),
            (Precision::F16, _) => Ok(Kind::Half),
        }
    }
}

impl std::fmt::Display for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.device {
            Device::Cuda(index) => write!(f, "GPU {index}"),
            _ => write!(f, "CPU, {} threads", self.n_threads),
        }
    }
}

/// Lets the C allocator keep what libtorch frees: activations are as large in the next step,
/// and giving their pages back to the system and getting them zeroed again took a fifth of
/// a CPU step (SqueezeNet at 160 pixels, batches of 32).
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` only sets parameters of the allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}

/// Opens `libtorch_cuda.so` beside the `libtorch_cpu.so` in use, so that one binary, linked
/// with the CPU parts only, serves both. `None` if there is no such file.
fn open_cuda_library() -> Option<Result<(), String>> {
    let path = loaded_library_folder()?.join("libtorch_cuda.so");
    if !path.exists() {
        return None;
    }
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the library's initializers register its kernels with the libtorch that is
    // already loaded from the same folder; that is what they are made for.
    let opened = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    Some(match opened {
        Ok(library) => {
            // Registered kernels point into it: it stays open until the program ends.
            std::mem::forget(library);
            Ok(())
        }
        Err(err) => Err(err.to_string()),
    })
}

fn loaded_library_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .filter_map(|line| line.split_once('/').map(|(_, path)| format!("/{path}")))
        .find(|path| path.ends_with("/libtorch_cpu.so"))?;
    Some(PathBuf::from(path).parent()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_the_library_in_use_is_found() {
        let _ = tch::get_num_threads();
        assert!(
            loaded_library_folder()
                .unwrap()
                .join("libtorch_cpu.so")
                .exists()
        );
    }
}
