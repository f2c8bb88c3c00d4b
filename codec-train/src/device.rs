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

/// A device, and what is known of it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// For tensors.
    pub device: Device,
    /// For people: an adapter's name and how it is reached.
    pub name: String,
    /// Bytes of the largest tensor.
    pub largest: u64,
}

/// A device by name: `cpu`, `gpu`, `gpu:N`, `cuda`, `cuda:N`. A computation is tried on it, because some backends find out
/// only then that there is no device.
///
/// # Errors
/// The name is none of these, the backend is not built in, or the device does not work.
pub fn open(name: &str) -> Result<Device, TrainError> {
    Ok(find(name)?.device)
}

/// As [`open`], with what is known of the device. `flex` is another name of `cpu`.
///
/// # Errors
/// As there.
pub fn find(name: &str) -> Result<Opened, TrainError> {
    let error = |reason: String| TrainError::Device { name: name.to_owned(), reason };
    let (kind, index) = name.split_once(':').map_or((name, None), |(kind, index)| (kind, Some(index)));
    let index = match index {
        None => None,
        Some(text) => {
            Some(text.parse::<usize>().map_err(|_| error(format!("`{text}` is not the number of a device")))?)
        }
    };
    #[cfg(not(all(feature = "wgpu", feature = "cuda")))]
    let absent = |feature: &str| {
        let how = format!("`cargo install --path codec-train --features {feature}` builds it in");
        format!("it is not in this build of codec-train; {how}")
    };
    let opened = match kind {
        "cpu" | "flex" if index.is_none() => Opened { device: cpu(), name: "the processor".into(), largest: 1 << 40 },
        #[cfg(feature = "wgpu")]
        "gpu" => adapters::open(index.unwrap_or(0)).map_err(error)?,
        #[cfg(feature = "cuda")]
        "cuda" => {
            let index = index.unwrap_or(0);
            Opened { device: Device::cuda(index), name: format!("CUDA device {index}"), largest: 1 << 32 }
        }
        #[cfg(feature = "ndarray")]
        "ndarray" if index.is_none() => {
            #[allow(deprecated, reason = "by burn; it is here to be compared with")]
            let device = Device::ndarray();
            Opened { device, name: "the processor, by ndarray".into(), largest: 1 << 40 }
        }
        #[cfg(not(feature = "wgpu"))]
        "gpu" => return Err(error(absent("wgpu"))),
        #[cfg(not(feature = "cuda"))]
        "cuda" => return Err(error(absent("cuda"))),
        _ => return Err(error("there are cpu, gpu, gpu:N, cuda and cuda:N".to_owned())),
    };
    let tried = catch_unwind(AssertUnwindSafe(|| Tensor::<1>::ones([2], &opened.device).sum().into_scalar::<f32>()));
    match tried {
        Ok(2.0) => Ok(opened),
        _ => Err(error("no such device answers; is its driver installed?".to_owned())),
    }
}

/// Adapters that wgpu reaches by an interface made for computing; OpenGL is none.
#[cfg(feature = "wgpu")]
mod adapters {
    use std::{
        collections::BTreeMap,
        future::Future,
        pin::pin,
        sync::{Mutex, PoisonError},
        task::{Context, Poll, Waker},
    };

    use burn::tensor::{
        Device, DeviceKind,
        wgpu::{WgpuBackend, wgpu},
    };

    use super::Opened;

    /// An adapter can be set up once in a process.
    static OPEN: Mutex<BTreeMap<usize, Opened>> = Mutex::new(BTreeMap::new());

    struct Adapter {
        info: wgpu::AdapterInfo,
        api: WgpuBackend,
        kind: DeviceKind,
    }

    /// The adapters, in the order of their numbers: graphics cards first, software last.
    fn list() -> Vec<Adapter> {
        let apis = [
            (wgpu::Backends::VULKAN, WgpuBackend::Vulkan),
            (wgpu::Backends::METAL, WgpuBackend::Metal),
            (wgpu::Backends::DX12, WgpuBackend::Dx12),
        ];
        let of = |(backends, api): (wgpu::Backends, WgpuBackend)| {
            let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
                backends,
                ..wgpu::InstanceDescriptor::new_without_display_handle()
            });
            let mut seen = [0; 4];
            let adapters = now(instance.enumerate_adapters(backends)).into_iter().filter_map(|adapter| {
                let info = adapter.get_info();
                let (order, kind): (usize, fn(usize) -> DeviceKind) = match info.device_type {
                    wgpu::DeviceType::DiscreteGpu => (0, DeviceKind::DiscreteGpu),
                    wgpu::DeviceType::IntegratedGpu => (1, DeviceKind::IntegratedGpu),
                    wgpu::DeviceType::VirtualGpu => (2, DeviceKind::VirtualGpu),
                    wgpu::DeviceType::Cpu => (3, |_| DeviceKind::Cpu),
                    // burn has no way to name it.
                    wgpu::DeviceType::Other => return None,
                };
                seen[order] += 1;
                Some((order, Adapter { info, api, kind: kind(seen[order] - 1) }))
            });
            let mut adapters: Vec<_> = adapters.collect();
            adapters.sort_by_key(|(order, _)| *order);
            adapters.into_iter().map(|(_, adapter)| adapter).collect::<Vec<_>>()
        };
        apis.into_iter().map(of).find(|list| !list.is_empty()).unwrap_or_default()
    }

    pub(super) fn open(index: usize) -> Result<Opened, String> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = open.get(&index) {
            return Ok(opened.clone());
        }
        let mut adapters = list();
        if index >= adapters.len() {
            let names: Vec<_> =
                adapters.iter().enumerate().map(|(i, a)| format!("gpu:{i} is {}", a.info.name)).collect();
            return Err(match names.is_empty() {
                true => "no adapter is there by Vulkan, Metal or DirectX 12; install the graphics card's driver, or \
                         mesa-vulkan-drivers for one in software"
                    .to_owned(),
                false => format!("there is none of this number; {}", names.join(", ")),
            });
        }
        let Adapter { info, api, kind } = adapters.swap_remove(index);
        let options = Device::wgpu_options().device_kind(kind).graphics_api(api);
        let (device, setup) = options.init_with_setup().map_err(|e| format!("{}: {e}", info.name))?;
        let limits = setup.device.limits();
        let info = setup.adapter.get_info();
        let software = if info.device_type == wgpu::DeviceType::Cpu { ", in software" } else { "" };
        let opened = Opened {
            device,
            name: format!("{} ({:?}{software})", info.name, info.backend),
            largest: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        };
        open.insert(index, opened.clone());
        Ok(opened)
    }

    /// What a future gives that waits for nothing but this thread.
    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            std::thread::yield_now();
        }
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
        for name in ["tpu", "cpu:x", "cpu:1", "cpu:", "gpu:", "gpu:-1", "cuda:x", ""] {
            let error = super::open(name).unwrap_err().to_string();
            assert!(error.contains(name) && (error.contains("cpu") || error.contains("number")), "{error}");
        }
        assert!(super::open("cpu").is_ok());
    }
}
