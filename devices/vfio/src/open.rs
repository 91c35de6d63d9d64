//! Opening a function: through the node of its group into a type1 container, or through its own node
//! into an address space of iommufd.
#![expect(unsafe_code, reason = "borrows the descriptor that vfio-ioctls owns")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hostcall::gate;
use iommufd_bindings::iommufd::iommu_hw_info_type_IOMMU_HW_INFO_TYPE_INTEL_VTD as IOMMU_HW_INFO_TYPE_INTEL_VTD;
use vfio_ioctls::{VfioDevice, VfioError};

use crate::container::Container;
use crate::error;
use crate::function::Function;
use crate::ioas::Ioas;
use crate::region::{Region, RegionIndex};
use crate::sysfs::{Member, Sysfs, is_vfio};

const ATTACH: &str = "VFIO_DEVICE_ATTACH_IOMMUFD_PT";
const BIND: &str = "VFIO_DEVICE_BIND_IOMMUFD";
const HW_INFO: &str = "IOMMU_GET_HW_INFO";
const GET_DEVICE: &str = "VFIO_GROUP_GET_DEVICE_FD";

/// What becomes of DMA while its function moves to another address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// It meets one of the two.
    OneStep,
    /// For a moment it meets neither, and fails: an entry of the IOMMU's tables is taken away before it is
    /// written anew. Linux does so on an SMMUv3, since two words of a context descriptor change
    /// (`drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c`, `arm_smmu_write_entry`).
    Interrupting,
}

/// Why a function could not be opened. Nothing of the host has changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such function.
    #[error("{0}: this host has no such function")]
    Missing(String),
    /// It is in no IOMMU group.
    #[error("{0}: in no IOMMU group, so its DMA cannot be confined")]
    NoGroup(String),
    /// A host driver has it.
    #[error("{function}: device still bound to host driver {driver}")]
    HostDriver {
        /// The function.
        function: String,
        /// The driver.
        driver: String,
    },
    /// No driver has it, so that VFIO does not either.
    #[error("{0}: device not bound to vfio-pci")]
    Unbound(String),
    /// Another function that it cannot be told apart from belongs to the host.
    #[error("{function}: shares IOMMU group {group} with {}", list(members))]
    ForeignMembers {
        /// The function.
        function: String,
        /// The group.
        group: String,
        /// Who holds the group.
        members: Vec<Member>,
    },
    /// The node of its group, or its own, may not be opened.
    #[error("{function}: no permission to open {}", node.display())]
    Permission {
        /// The function.
        function: String,
        /// The node.
        node: PathBuf,
    },
    /// Another process has it, or its group.
    #[error("{function}: {} is in use by another process", node.display())]
    Busy {
        /// The function.
        function: String,
        /// The node.
        node: PathBuf,
    },
    /// The kernel has no node for it alone, as iommufd needs (Linux 6.6, `CONFIG_VFIO_DEVICE_CDEV`).
    #[error("{0}: has no node in /dev/vfio/devices")]
    NoNode(String),
    /// A call failed for another reason.
    #[error("{function}: cannot be opened through VFIO: {call} failed")]
    Call {
        /// The function.
        function: String,
        /// By its name in the kernel.
        call: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// VFIO describes the function in a way that cannot be used.
    #[error("{function}: VFIO reports {what}")]
    Malformed {
        /// The function.
        function: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The descriptor could not be duplicated.
    #[error("{function}: no descriptor for its regions")]
    Descriptor {
        /// The function.
        function: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

fn list(members: &[Member]) -> String {
    let names: Vec<String> = members.iter().map(Member::to_string).collect();
    names.join(", ")
}

/// Why a function stays in the address space where it is.
#[derive(Debug, thiserror::Error)]
#[error("{function}: {ATTACH} failed")]
pub struct AttachError {
    function: String,
    #[source]
    source: io::Error,
}

impl Function {
    /// Opens the function at `sysfs` into `container`.
    ///
    /// # Errors
    /// When it is not free to be assigned, or VFIO fails; the host is then as it was.
    pub fn open(container: &Container, sysfs: &Sysfs) -> Result<Self, OpenError> {
        let group = Self::check(sysfs)?;
        let function = sysfs.name();
        let device = match container {
            Container::Type1(container) => {
                let opened = gate(GET_DEVICE).map_err(|source| (GET_DEVICE, source));
                let opened = opened.and_then(|()| {
                    VfioDevice::new(sysfs.path(), container.clone(), false).map_err(error::call)
                });
                let node = PathBuf::from("/dev/vfio").join(group);
                opened.map_err(|failed| open_error(&function, node, failed))?
            }
            Container::Iommufd(ioas) => open_node(sysfs, ioas)?,
        };
        // SAFETY: `device` owns the descriptor and outlives this borrow.
        let borrowed = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
        let file = borrowed.try_clone_to_owned();
        let file = file.map_err(|source| OpenError::Descriptor {
            function: function.clone(),
            source,
        })?;
        let config = Region::read_from(&device, RegionIndex::CONFIG);
        // vfio-ioctls skips a region that it cannot query, which would shift all later ones.
        if !matches!(config.size(), 256 | 4096) || !config.is_writable() {
            let what = "a configuration space of neither 256 nor 4096 bytes";
            return Err(OpenError::Malformed { function, what });
        }
        let bars = RegionIndex::BARS.map(|index| Region::read_from(&device, index));
        Ok(Self {
            file: Arc::new(file.into()),
            device,
            name: function,
            bars,
            config,
            enabled: Mutex::default(),
        })
    }

    /// Whether the function at `sysfs` is free to be assigned, by what sysfs says; the name of its
    /// group. Opens and changes nothing.
    ///
    /// # Errors
    /// When it is missing, or it or its group is held by a host driver.
    pub fn check(sysfs: &Sysfs) -> Result<String, OpenError> {
        let function = sysfs.name();
        if !sysfs.exists() {
            return Err(OpenError::Missing(function));
        }
        let Some(group) = sysfs.group() else {
            return Err(OpenError::NoGroup(function));
        };
        match sysfs.driver() {
            None => return Err(OpenError::Unbound(function)),
            Some(driver) if !is_vfio(&driver) => {
                return Err(OpenError::HostDriver { function, driver });
            }
            Some(_) => {}
        }
        let members = sysfs.foreign_members();
        if !members.is_empty() {
            return Err(OpenError::ForeignMembers {
                function,
                group,
                members,
            });
        }
        Ok(group)
    }

    /// What becomes of the function's DMA while [`Function::attach`] moves it. An IOMMU that is not known
    /// for its moves counts as one that interrupts.
    #[must_use]
    pub fn motion(&self, ioas: &Ioas) -> Motion {
        let known = self.device.iommufd_dev_id();
        let kind = known.and_then(|id| gate(HW_INFO).and_then(|()| ioas.iommu_kind(id)).ok());
        match kind {
            Some(IOMMU_HW_INFO_TYPE_INTEL_VTD) => Motion::OneStep,
            _ => Motion::Interrupting,
        }
    }

    /// Puts the function behind another address space of the same iommufd: its DMA meets one of the two, but
    /// for what [`Function::motion`] says, and its message interrupts go on. All functions of its IOMMU
    /// group move along.
    ///
    /// # Errors
    /// When the kernel refuses; the function is then where it was.
    pub fn attach(&self, ioas: &Ioas) -> Result<(), AttachError> {
        let attached = gate(ATTACH).and_then(|()| {
            let result = self.device.attach_hwpt(ioas.id());
            result.map_err(|error| error::call(error).1)
        });
        attached.map_err(|source| AttachError {
            function: self.name().to_owned(),
            source,
        })
    }
}

/// Opens the function's own node, binds it to the iommufd of `ioas` and puts it there.
fn open_node(sysfs: &Sysfs, ioas: &Ioas) -> Result<VfioDevice, OpenError> {
    let function = sysfs.name();
    let node = sysfs.node();
    let node = node.ok_or_else(|| OpenError::NoNode(function.clone()))?;
    let file = gate("open").map_err(VfioError::OpenDeviceCdev);
    let file = file.and_then(|()| VfioDevice::open_cdev(sysfs.path()));
    let bound = file.map_err(error::call).and_then(|file| {
        gate(BIND).map_err(|source| (BIND, source))?;
        VfioDevice::new_from_fd(file, Arc::clone(ioas.inner()), false).map_err(error::call)
    });
    let device = bound.map_err(|failed| open_error(&function, node.clone(), failed))?;
    let attached = gate(ATTACH).map_err(|source| (ATTACH, source));
    let attached = attached.and_then(|()| device.attach_hwpt(ioas.id()).map_err(error::call));
    attached.map_err(|failed| open_error(&function, node, failed))?;
    Ok(device)
}

/// Tells apart the failures that an operator can do something about.
fn open_error(
    function: &str,
    node: PathBuf,
    (call, source): (&'static str, io::Error),
) -> OpenError {
    let function = function.to_owned();
    match (call, source.raw_os_error()) {
        ("open", Some(libc::EACCES | libc::EPERM)) => OpenError::Permission { function, node },
        // A device node is opened by many and bound by one: EINVAL for the second of them, EBUSY when
        // its group is open or a neighbour of its group is bound elsewhere.
        ("open" | BIND, Some(libc::EBUSY)) | (BIND, Some(libc::EINVAL)) => {
            OpenError::Busy { function, node }
        }
        _ => OpenError::Call {
            function,
            call,
            source,
        },
    }
}
