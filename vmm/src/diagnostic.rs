//! What is wrong with a config, a host or a launch, in the words of its operator.
//!
//! Every diagnostic has a stable [`Code`], names the thing, and says what would help. Codes are
//! never reused: `01xx` reach and placement, `02xx` the config file, `03xx` host facts, `04xx` boot
//! files and launch, `05xx` assigned devices, `06xx` emulated devices, `07xx` what a platform cannot
//! protect or cannot have, `08xx` launch measurements.

use std::fmt;
use std::ops::Range;

use crate::host::facts::PciAddress;

/// Declares the codes and the table of them, in one place.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $title:literal;)*) => {
        /// The stable name of a kind of diagnostic, such as `CCVM0101`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// Every code, ascending, for the reference.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// One line on what the code means, whatever the particulars.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// A device's DMA width is too small for the memory.
    DmaWidthTooNarrow = 101, "an assigned device cannot reach all of guest memory";
    /// The VM fits in no guest-physical space that the host offers.
    MemoryTooLarge = 102, "the VM does not fit in the host's guest-physical address space";
    /// No width of the space is small enough for the device.
    DmaWidthBelowMinimum = 103, "an assigned device is too narrow for any VM of this kind";
    /// The IOMMU's aperture is too small for the memory.
    ApertureTooSmall = 104, "a device's IOMMU cannot map all of guest memory";
    /// Reserved IOVA ranges leave too little room for the memory.
    ReservedRangesTooLarge = 105, "reserved IOVA ranges leave too little room for guest memory";
    /// `bounce` where nothing low is shared.
    BounceImpossible = 106, "the platform has no memory to bounce through";
    /// Translated DMA in a guest that cannot use it.
    TranslatedDmaImpossible = 107, "the platform's guests cannot use translated DMA";
    /// The guest bounces for a device.
    DmaBounces = 108, "an assigned device reaches only a part of guest memory without bouncing";
    /// Sources of a device's DMA width disagree.
    DmaWidthConflict = 109, "sources of a device's DMA width disagree";
    /// The width of the space was forced.
    IpaOverride = 110, "the width of the guest-physical address space is overridden";
    /// The width of the space was forced to what cannot be.
    IpaOverrideImpossible = 111, "the overridden width of the guest-physical address space cannot be";
    /// A DMA width that no device has.
    ImpossibleDmaWidth = 112, "a source gives a DMA width that no device has";
    /// The host does not offer the platform.
    PlatformNotOffered = 113, "the host does not offer the platform";
    /// ccvm plans for the platform, but cannot launch it.
    PlatformNotLaunched = 114, "this ccvm does not launch the platform";
    /// Nothing is known of the host's KVM.
    NoKvm = 115, "the host has no KVM, or its limits are not known";
    /// A device has translated DMA in a VM without an IOMMU.
    VirtualIommuAbsent = 116, "a device needs the virtual IOMMU that the config leaves out";
    /// An interrupt could not reach all of them.
    TooManyVcpus = 117, "the architecture does not have so many vCPUs";
    /// A device is too narrow for the names of shared memory once its guest has accepted it.
    AcceptedDmaTooNarrow = 118, "an assigned device cannot reach shared memory once it is accepted";
    /// An accepted device has no names for shared memory.
    AcceptedDmaUnshared = 119, "the platform has no shared memory for an accepted device";
    /// The config is not TOML.
    ConfigSyntax = 201, "the config file is not valid TOML";
    /// A key that no config has.
    UnknownKey = 202, "the config file has an unknown key";
    /// A value of a known key is out of its range or of the wrong type.
    InvalidValue = 203, "a config value is not acceptable";
    /// A key that every config needs is absent.
    MissingKey = 204, "the config file lacks a key";
    /// Two `[[device]]` tables name the same function.
    DuplicateDevice = 205, "a device is assigned twice";
    /// The config file cannot be read.
    ConfigUnreadable = 206, "the config file cannot be read";
    /// The host facts are not JSON.
    HostFactsSyntax = 301, "the host facts are not valid JSON";
    /// The host facts are of another schema version.
    HostFactsVersion = 302, "the host facts are of another version";
    /// The host facts hold a value that no host can have.
    HostFactsValue = 303, "a value in the host facts is not acceptable";
    /// The host facts file cannot be read.
    HostFactsUnreadable = 304, "the host facts file cannot be read";
    /// A config without `[boot]` can be checked, not run.
    NothingToBoot = 401, "the config does not say what to boot";
    /// The kernel file cannot be opened or read.
    KernelUnreadable = 402, "the kernel cannot be read";
    /// The kernel file has another format or another architecture.
    NotAKernel = 403, "the kernel file is not a kernel of this architecture";
    /// The kernel file is cut short, or does not decompress.
    KernelDamaged = 404, "the kernel file is damaged";
    /// The initial RAM disk cannot be opened or read.
    InitrdUnreadable = 405, "the initial RAM disk cannot be read";
    /// The initial RAM disk is empty, cut short, or no file.
    InitrdDamaged = 406, "the initial RAM disk is damaged";
    /// Kernel, initial RAM disk and what the kernel is told need more memory than a range of DRAM has.
    BootFilesTooLarge = 407, "the boot files do not fit in guest memory";
    /// The command line is too long, or holds what a kernel does not take.
    CommandLine = 408, "the kernel does not take the command line";
    /// `/dev/kvm` may not be opened.
    KvmDenied = 410, "KVM may not be used";
    /// KVM lacks a feature, or refuses a step of the launch.
    KvmRefused = 411, "KVM refuses the VM";
    /// The host has no room for guest memory.
    NoHostMemory = 412, "the host cannot hold the guest's memory";
    /// A file for the run's own use cannot be written.
    RunFile = 414, "a file of the run cannot be written";
    /// There is no socket to control the VM by.
    ControlSocket = 415, "the VM cannot be controlled by a socket";
    /// The firmware file cannot be opened or read.
    FirmwareUnreadable = 416, "the firmware cannot be read";
    /// The firmware file is none that the platform's guests can start from.
    NotFirmware = 417, "the firmware file is not firmware for the platform";
    /// The platform's guests start in firmware, and the config names none.
    FirmwareAbsent = 418, "the platform needs firmware";
    /// The platform's guests start without firmware.
    FirmwareUnused = 419, "the platform has no firmware";
    /// An IGVM file asks for something that ccvm, KVM or the plan does not give, or has no place for what the config gives
    /// it.
    GuestFileRefused = 420, "the guest in the file cannot be started as the file says";
    /// The host's pool of huge pages has too few, or none of that size.
    HugePagesMissing = 430, "the host has too few huge pages";
    /// The VM's memory cannot be made of huge pages of the pool.
    HugePagesImpossible = 431, "the VM's memory cannot be made of such huge pages";
    /// A NUMA node that the host does not have, or that may not be used.
    NumaNodeAbsent = 432, "memory cannot come from a NUMA node";
    /// A CPU that the host does not have, or that may not be used.
    CpuAbsent = 433, "a vCPU cannot be pinned to a CPU";
    /// Guest memory cannot be filled before the guest runs.
    NotPrefaulted = 434, "guest memory cannot be filled in advance";
    /// The platform only looks like a confidential one.
    NoConfidentiality = 450, "the VM is not protected from its host";
    /// A device's IOMMU group is not known.
    NoIommuGroup = 510, "a device's IOMMU group is not known";
    /// Another device of the group is the host's.
    GroupNotViable = 511, "a device shares its IOMMU group with one that the host uses";
    /// The guest's PCI bus is full.
    TooManyDevices = 512, "the guest's PCI bus is full";
    /// The device is bound to no VFIO driver.
    DeviceNotBound = 530, "the device is not bound to vfio-pci";
    /// The kernel has no VFIO, or another kind of it.
    VfioMissing = 531, "the host has no usable VFIO";
    /// A node of VFIO may not be opened.
    VfioPermission = 532, "no permission to use VFIO";
    /// VFIO does not hand out the device.
    DeviceNotOpened = 533, "the device cannot be opened through VFIO";
    /// The device has no reset that works.
    DeviceNotReset = 534, "the device cannot be reset";
    /// Guest memory cannot be mapped for DMA.
    DmaTableNotFilled = 535, "assigned devices cannot be given guest memory";
    /// The device cannot be put on the guest's bus.
    DeviceNotAttached = 536, "the device cannot be put on the guest's bus";
    /// The kernel has no iommufd, or the device no node of its own.
    IommufdMissing = 537, "the host has no usable iommufd";
    /// A guest of this kind can ask for more DMA mappings than type1 allows.
    DmaEntriesMayRunOut = 538, "a guest can use up the DMA mappings that the host allows";
    /// The kernel refuses `IOMMU_IOAS_ALLOW_IOVAS`.
    DmaPlanNotPinned = 539, "the IOMMU does not promise the addresses of the plan";
    /// No function of the host has the address.
    DeviceAbsent = 550, "the device is not there";
    /// A bridge, or a device that no IOMMU confines.
    DeviceNotAssignable = 551, "the device cannot be assigned";
    /// `vfio-pci` is neither loaded nor built in.
    VfioDriverAbsent = 552, "the kernel has no vfio-pci driver";
    /// The kernel refuses to change a device's driver.
    DeviceNotMoved = 553, "the device cannot be moved between drivers";
    /// A VM has the device, or the host depends on it.
    DeviceInUse = 554, "the device is in use";
    /// The masks of the driver that goes cannot be written down.
    MasksNotKept = 555, "the DMA masks of the device cannot be kept";
    /// The plan of the VM, or the host, does not allow it.
    PlugRefused = 560, "a device cannot come to a VM that runs";
    /// The guest goes on with it.
    NotUnplugged = 561, "a device does not leave a VM that runs";
    /// Slots beside a virtual IOMMU, or on a platform on which no device comes later.
    NoSlots = 562, "the VM cannot have slots for devices that come later";
    /// The memory kept for a slot is smaller than what the device decodes.
    SlotTooSmall = 563, "a device does not fit in a slot of the VM";
    /// The file of a disk cannot be opened, or is no file.
    DiskUnreadable = 601, "a disk image cannot be opened";
    /// The file of a disk is not of the format that the config says.
    DiskDamaged = 602, "a disk image is not of its format";
    /// Another VM, or another disk of this one, has the file.
    DiskInUse = 603, "a disk image is in use";
    /// The file system does not do `O_DIRECT`.
    DiskNotDirect = 604, "a disk image cannot be read past the host's page cache";
    /// The file is taken for raw, and begins as an image of another format does.
    DiskLooksOtherwise = 605, "a disk image looks like one of another format";
    /// The image refers to another file.
    DiskNeedsOtherFile = 606, "a disk image is not whole by itself";
    /// An image is given for one that is not written over any.
    DiskNotOver = 607, "a disk image is not written over another";
    /// The kernel has no tap interfaces, or does not open the node.
    TapMissing = 610, "the host has no tap interfaces";
    /// The interface may not be made, or belongs to somebody else.
    TapDenied = 611, "no permission to use a tap interface";
    /// Another process, or another device of this VM, has the interface.
    TapInUse = 612, "a tap interface is in use";
    /// The interface or the descriptor is of another kind.
    NotATap = 613, "a network device has something else than a tap interface behind it";
    /// Frames go nowhere while it is down.
    TapDown = 614, "a tap interface is down";
    /// The kernel has no vhost-vsock, or does not open the node.
    VsockMissing = 620, "the host has no vhost-vsock";
    /// Another VM has the context id.
    VsockInUse = 621, "a context id is in use";
    /// Whoever serves the device would see private memory.
    ServedOutside = 630, "the platform's guests cannot have a device that others serve";
    /// Nobody listens at the socket.
    DaemonUnreachable = 631, "a vhost-user daemon cannot be reached";
    /// The daemon is of another kind, or of another mind.
    DaemonUnfit = 632, "a vhost-user daemon does not serve the device";
    /// The device cannot be put on the guest's bus, or has no thread to serve it.
    EmulatedNotMade = 650, "an emulated device cannot be made";
    /// Devices of a protected VM reach its private memory.
    DmaNotIsolated = 701, "the platform does not keep assigned devices from private memory";
    /// The operator has given that protection up.
    DmaIsolationGivenUp = 702, "assigned devices reach the VM's private memory, as the config says";
    /// An emulated device would touch memory that may be private.
    EmulatedDmaImpossible = 703, "the platform has no emulated device that reads guest memory";
    /// Guests of the platform have nothing to attest.
    NotMeasured = 801, "the platform has no launch measurement";
    /// What the platform would measure is not decided by the config.
    MeasurementNotForetold = 802, "the launch measurement cannot be foretold";
    /// The measurement rests on what the operator says of a host, or on reading.
    MeasurementUnproven = 803, "the launch measurement rests on what was said or read of hosts";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CCVM{:04}", *self as u16)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the VM can run.
    Warning,
    /// The VM cannot run.
    Error,
}

/// What in the config a finding is about; the config knows where in the file that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A key of `[vm]`, as it is spelt in the file.
    Vm(&'static str),
    /// A key of `[boot]`.
    Boot(&'static str),
    /// A key of `[resources]`.
    Resources(&'static str),
    /// The `[[device]]` with this index in the file, or one of its keys.
    Device(usize, Option<&'static str>),
    /// The `[[disk]]` with this index in the file, or one of its keys.
    Disk(usize, Option<&'static str>),
    /// The `[[net]]` with this index in the file, or one of its keys.
    Net(usize, Option<&'static str>),
    /// The `[[vhost-user]]` with this index in the file.
    VhostUser(usize),
    /// `[vsock]`.
    Vsock,
    /// `[rng]`.
    Rng,
    /// `[console]`.
    Console,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, with the particulars: lower case, no full stop.
    pub message: String,
    /// What would help, where something would.
    pub help: Option<String>,
    /// The device that it is about.
    pub device: Option<PciAddress>,
    /// What in the config it is about.
    pub place: Option<Place>,
    /// The bytes of the config file that it is about: filled in by whoever has the file.
    pub span: Option<Range<usize>>,
    /// Another place in the same file that belongs to it, with what is there.
    pub related: Option<Box<Related>>,
}

/// Another place in the file that belongs to a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// The bytes of the config file.
    pub span: Range<usize>,
    /// What is there.
    pub what: &'static str,
}

impl Diagnostic {
    /// A finding that forbids the VM.
    #[must_use]
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, message.into())
    }

    /// A finding that the operator should know of.
    #[must_use]
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, message.into())
    }

    fn new(code: Code, severity: Severity, message: String) -> Self {
        Self {
            code,
            severity,
            message,
            help: None,
            device: None,
            place: None,
            span: None,
            related: None,
        }
    }

    /// Adds what would help.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Names the device that the finding is about.
    #[must_use]
    pub fn about(mut self, device: PciAddress) -> Self {
        self.device = Some(device);
        self
    }

    /// Says what in the config the finding is about.
    #[must_use]
    pub fn on(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Points at other bytes of the same file, and says what is there.
    #[must_use]
    pub fn related(mut self, span: Range<usize>, what: &'static str) -> Self {
        self.related = Some(Box::new(Related { span, what }));
        self
    }

    /// Points at the bytes of the config file that the finding is about.
    #[must_use]
    pub fn at(mut self, span: Range<usize>) -> Self {
        self.span = Some(span);
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_print_with_four_digits() {
        assert!(Code::ALL.is_sorted());
        assert_eq!(Code::DmaWidthTooNarrow.to_string(), "CCVM0101");
    }
}
