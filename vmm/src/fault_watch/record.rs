//! Records of `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg`).
//!
//! ```text
//! 3,1290,5140900,-;arm-smmu-v3 9050000.smmuv3: event: F_TRANSLATION client: 0000:00:02.0 ...
//!  SUBSYSTEM=platform
//! ```

/// The text of a record that the kernel itself has written, without the dictionary after it.
///
/// What programs write to the log has another facility, whatever they say: nobody but the kernel can
/// make up a fault.
pub(super) fn kernel_text(record: &[u8]) -> Option<&str> {
    const KERNEL: u32 = 0;
    let record = std::str::from_utf8(record).ok()?;
    let (prefix, rest) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let _sequence: u64 = fields.next()?.parse().ok()?;
    let _microseconds: u64 = fields.next()?.parse().ok()?;
    if priority >> 3 != KERNEL {
        return None;
    }
    rest.lines().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_has_written_counts() {
        let record = b"3,1290,5140900,-;arm-smmu-v3 x: event\n SUBSYSTEM=platform\n";
        assert_eq!(kernel_text(record), Some("arm-smmu-v3 x: event"));
        let continued = b"6,339,5140900,c,caller=T1;NET\n";
        assert_eq!(kernel_text(continued), Some("NET"));
        for other in [
            &b"11,1290,5140900,-;arm-smmu-v3 x: event\n"[..],
            b"3,1290;text",
            b"3,1290,5140900,- text",
            b"x,1290,5140900,-;text",
            b"\xff,1,1,-;text",
            b"",
        ] {
            assert_eq!(kernel_text(other), None, "{other:?}");
        }
    }
}
