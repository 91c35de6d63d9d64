//! What vfio-ioctls says, in the kernel's words.

use std::io;

use vfio_ioctls::VfioError;

/// The call that failed, by its name in the kernel, and why.
pub(crate) fn call(error: VfioError) -> (&'static str, io::Error) {
    match error {
        VfioError::OpenContainer(source) => ("open", source),
        VfioError::OpenGroup(source, _) => ("open", source),
        VfioError::OpenDeviceCdev(source) => ("open", source),
        VfioError::ContainerSetIOMMU(errno) => ("VFIO_SET_IOMMU", errno.into()),
        VfioError::GroupGetDeviceFD(errno) => ("VFIO_GROUP_GET_DEVICE_FD", errno.into()),
        VfioError::VfioDeviceGetInfo(errno) => ("VFIO_DEVICE_GET_INFO", errno.into()),
        VfioError::VfioDeviceGetRegionInfo(errno) => ("VFIO_DEVICE_GET_REGION_INFO", errno.into()),
        VfioError::VfioDeviceBindIommufd(errno) => ("VFIO_DEVICE_BIND_IOMMUFD", errno.into()),
        VfioError::VfioDeviceAttachIommufdPt(errno) => {
            ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno.into())
        }
        VfioError::GetGroupStatus | VfioError::GroupViable => {
            ("VFIO_GROUP_GET_STATUS", io::Error::other(error))
        }
        VfioError::GroupSetContainer => ("VFIO_GROUP_SET_CONTAINER", io::Error::other(error)),
        VfioError::VfioDeviceSetIrq
        | VfioError::VfioDeviceEnableIrq
        | VfioError::VfioDeviceDisableIrq
        | VfioError::VfioDeviceUnmaskIrq
        | VfioError::VfioDeviceSetIrqResampleFd => {
            ("VFIO_DEVICE_SET_IRQS", io::Error::other(error))
        }
        other => ("a call", io::Error::other(other)),
    }
}
