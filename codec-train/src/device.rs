//! Where tensors live.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Device, Tensor};

use crate::TrainError;

/// The processor.
pub fn cpu() -> Device {
    Device::flex()
}

/// The name with `local`, as in `cuda:local`, replaced by which of the processes on this machine this is.
pub fn of_process(name: &str, local_rank: usize) -> String {
    name.strip_suffix(":local").map_or_else(|| name.to_owned(), |kind| format!("{kind}:{local_rank}"))
}

/// A device by name: `cpu`, `gpu`, `gpu:N`, `cuda`, `cuda:N`. A computation is tried on it, because some backends find out
/// only then that there is no device.
///
/// # Errors
/// The name is none of these, the backend is not built in, or the device does not work.
pub fn open(name: &str) -> Result<Device, TrainError> {
    let error = |reason: String| TrainError::Device { name: name.to_owned(), reason };
    let (kind, index) = name.split_once(':').unwrap_or((name, ""));
    let index = match index {
        "" => None,
        text => Some(text.parse::<usize>().map_err(|_| error(format!("`{text}` is not the number of a device")))?),
    };
    let device = match kind {
        "cpu" if index.is_none() => cpu(),
        #[cfg(feature = "wgpu")]
        "gpu" => Device::wgpu(match index {
            None => burn::tensor::DeviceKind::DefaultDevice,
            Some(n) => burn::tensor::DeviceKind::DiscreteGpu(n),
        }),
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(index.unwrap_or(0)),
        _ => {
            let built = [("cpu", true), ("gpu", cfg!(feature = "wgpu")), ("cuda", cfg!(feature = "cuda"))];
            let names: Vec<_> = built.iter().filter(|(_, built)| *built).map(|(name, _)| *name).collect();
            return Err(error(format!("this build has {}", names.join(", "))));
        }
    };
    let tried = catch_unwind(AssertUnwindSafe(|| Tensor::<1>::ones([2], &device).sum().into_scalar::<f32>()));
    match tried {
        Ok(2.0) => Ok(device),
        _ => Err(error("no such device answers; is its driver installed?".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn processes_take_devices_of_their_own() {
        assert_eq!(super::of_process("cuda:local", 3), "cuda:3");
        assert_eq!(super::of_process("gpu:1", 3), "gpu:1");
    }

    #[test]
    fn unknown_devices_are_errors_that_say_what_there_is() {
        for name in ["tpu", "cpu:x", "cpu:1", ""] {
            let error = super::open(name).unwrap_err().to_string();
            assert!(error.contains(name) && (error.contains("cpu") || error.contains("number")), "{error}");
        }
        assert!(super::open("cpu").is_ok());
    }
}
