//! The keys that a config may have, and which of them a wrong one was meant to be.

/// A table of the config file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    /// The document itself.
    Root,
    /// `[vm]`
    Vm,
    /// `[boot]`
    Boot,
    /// One `[[device]]`
    Device,
    /// One `[[disk]]`
    Disk,
    /// One `[[net]]`
    Net,
    /// One `[[vhost-user]]`
    VhostUser,
    /// `[vsock]`
    Vsock,
    /// `[rng]`
    Rng,
    /// `[console]`
    Console,
    /// `[resources]`
    Resources,
}

impl Table {
    const ALL: [Self; 11] = [
        Self::Root,
        Self::Vm,
        Self::Boot,
        Self::Device,
        Self::Disk,
        Self::Net,
        Self::VhostUser,
        Self::Vsock,
        Self::Rng,
        Self::Console,
        Self::Resources,
    ];

    /// Its keys, in the order of the reference.
    pub(super) const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Root => &[
                "vm",
                "boot",
                "device",
                "disk",
                "net",
                "vhost-user",
                "vsock",
                "rng",
                "console",
                "resources",
            ],
            Self::Vm => &[
                "platform",
                "vcpus",
                "memory",
                "dma-rule",
                "iommu",
                "dma-backend",
                "pkvm-device-dma",
                "hotplug-ports",
                "hotplug-window",
            ],
            Self::Boot => &["kernel", "initrd", "cmdline", "firmware"],
            Self::Device => &["pci", "dma-bits", "dma"],
            Self::Disk => &[
                "path",
                "format",
                "readonly",
                "serial",
                "queues",
                "cache",
                "backing",
                "backing-format",
            ],
            Self::Net => &["tap", "fd", "mac", "queues"],
            Self::VhostUser => &["kind", "socket", "queues", "mac", "tag"],
            Self::Vsock => &["cid"],
            Self::Rng => &[],
            Self::Console => &["device"],
            Self::Resources => &["huge-pages", "prefault", "numa-nodes", "pin-vcpus"],
        }
    }

    /// Words for the same thing elsewhere, too far from ours for an edit distance.
    const fn synonyms(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Root => &[
                ("machine", "vm"),
                ("devices", "device"),
                ("vfio", "device"),
                ("drive", "disk"),
                ("block", "disk"),
                ("network", "net"),
                ("nic", "net"),
                ("entropy", "rng"),
            ],
            Self::Vm => &[
                ("cpus", "vcpus"),
                ("smp", "vcpus"),
                ("mem", "memory"),
                ("ram", "memory"),
                ("type", "platform"),
                ("viommu", "iommu"),
                ("smmu", "iommu"),
                ("hotplug", "hotplug-ports"),
                ("slots", "hotplug-ports"),
            ],
            Self::Boot => &[
                ("image", "kernel"),
                ("initramfs", "initrd"),
                ("args", "cmdline"),
                ("append", "cmdline"),
            ],
            Self::Device => &[
                ("address", "pci"),
                ("bdf", "pci"),
                ("host", "pci"),
                ("width", "dma-bits"),
            ],
            Self::Net => &[
                ("ifname", "tap"),
                ("interface", "tap"),
                ("address", "mac"),
                ("num-queues", "queues"),
            ],
            Self::VhostUser => &[
                ("path", "socket"),
                ("type", "kind"),
                ("num-queues", "queues"),
            ],
            Self::Vsock => &[("context-id", "cid"), ("guest-cid", "cid")],
            Self::Rng => &[],
            Self::Console => &[("kind", "device"), ("type", "device")],
            Self::Resources => &[
                ("hugetlb", "huge-pages"),
                ("page-size", "huge-pages"),
                ("prealloc", "prefault"),
                ("populate", "prefault"),
                ("numa", "numa-nodes"),
                ("nodes", "numa-nodes"),
                ("affinity", "pin-vcpus"),
                ("pin", "pin-vcpus"),
                ("cpuset", "pin-vcpus"),
            ],
            Self::Disk => &[
                ("file", "path"),
                ("image", "path"),
                ("num-queues", "queues"),
                ("base", "backing"),
                ("backing-file", "backing"),
            ],
        }
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Root => "config",
            Self::Vm => "vm",
            Self::Boot => "boot",
            Self::Device => "device",
            Self::Disk => "disk",
            Self::Net => "net",
            Self::VhostUser => "vhost-user",
            Self::Vsock => "vsock",
            Self::Rng => "rng",
            Self::Console => "console",
            Self::Resources => "resources",
        }
    }

    /// How it is written.
    pub(super) const fn header(self) -> &'static str {
        match self {
            Self::Root => "a config",
            Self::Vm => "`[vm]`",
            Self::Boot => "`[boot]`",
            Self::Device => "`[[device]]`",
            Self::Disk => "`[[disk]]`",
            Self::Net => "`[[net]]`",
            Self::VhostUser => "`[[vhost-user]]`",
            Self::Vsock => "`[vsock]`",
            Self::Rng => "`[rng]`",
            Self::Console => "`[console]`",
            Self::Resources => "`[resources]`",
        }
    }

    /// The key of this table that `wrong` was probably meant to be.
    pub(super) fn nearest_key(self, wrong: &str) -> Option<&'static str> {
        let lower = wrong.to_ascii_lowercase().replace('_', "-");
        let synonym = self.synonyms().iter().find(|(word, _)| *word == lower);
        synonym
            .map(|(_, key)| *key)
            .or_else(|| nearest(&lower, self.keys()))
    }

    /// Another table that has this key.
    pub(super) fn elsewhere(self, key: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|table| *table != self && table.keys().contains(&key))
    }
}

/// The nearest of `words`, when it is near enough to be what was meant.
pub(super) fn nearest(wrong: &str, words: &[&'static str]) -> Option<&'static str> {
    let (distance, word) = words
        .iter()
        .map(|word| (strsim::damerau_levenshtein(wrong, word), *word))
        .min()?;
    let most = word.len().max(3) / 3;
    (distance <= most).then_some(word)
}

/// The words as a choice: "`a`, `b` or `c`".
pub(super) fn choice(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_by_spelling_and_by_meaning() {
        for (table, wrong, key) in [
            (Table::Vm, "memroy", "memory"),
            (Table::Vm, "dma_rule", "dma-rule"),
            (Table::Vm, "Memory", "memory"),
            (Table::Vm, "ram", "memory"),
            (Table::Boot, "initramfs", "initrd"),
            (Table::Device, "dma_bits", "dma-bits"),
            (Table::Device, "dma-bit", "dma-bits"),
            (Table::Root, "devices", "device"),
        ] {
            assert_eq!(table.nearest_key(wrong), Some(key), "{wrong}");
        }
        assert_eq!(Table::Vm.nearest_key("firmware"), None);
        assert_eq!(Table::Root.nearest_key(""), None);
    }

    #[test]
    fn every_synonym_means_a_key_and_is_none() {
        for table in Table::ALL {
            for (word, key) in table.synonyms() {
                assert!(table.keys().contains(key), "{word} -> {key}");
                assert!(!table.keys().contains(word), "{word}");
            }
        }
    }
}
