//! QEMU's edu device (`docs/specs/edu.rst` of QEMU), through VFIO.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vfio::{Function, RegionIndex};

/// How many bytes one transfer copies: half of the device's buffer.
pub(crate) const BYTES: u16 = 2048;

/// Where the buffer is, in the addresses of the device's DMA engine.
const BUFFER: u64 = 0x4_0000;

const IDENTIFICATION: u64 = 0;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const START: u64 = 1;
const TO_MEMORY: u64 = 2;

/// The command register of configuration space: answer memory accesses, do DMA.
const PCI_COMMAND: u64 = 4;
const ENABLE: u16 = 0b110;

/// The device.
pub(crate) struct Edu {
    function: Function,
    registers: RegionIndex,
}

impl Edu {
    /// The device, switched on.
    pub(crate) fn new(function: Function) -> anyhow::Result<Self> {
        function.write(RegionIndex::CONFIG, PCI_COMMAND, &ENABLE.to_le_bytes())?;
        let registers = RegionIndex::bar(0).context("BAR 0")?;
        let mut id = [0; 4];
        function.read(registers, IDENTIFICATION, &mut id)?;
        ensure!(u32::from_le_bytes(id) == 0x0100_00ed, "edu does not answer");
        Ok(Self {
            function,
            registers,
        })
    }

    /// Fills the buffer from DMA address `address`.
    pub(crate) fn read(&self, address: u64) -> anyhow::Result<()> {
        self.copy(address, BUFFER, 0)
    }

    /// Writes the buffer to DMA address `address`.
    pub(crate) fn write(&self, address: u64) -> anyhow::Result<()> {
        self.copy(BUFFER, address, TO_MEMORY)
    }

    fn copy(&self, from: u64, to: u64, direction: u64) -> anyhow::Result<()> {
        let bytes = u64::from(BYTES);
        let registers = [
            (SOURCE, from),
            (DESTINATION, to),
            (COUNT, bytes),
            (COMMAND, START | direction),
        ];
        for (register, value) in registers {
            self.function
                .write(self.registers, register, &value.to_le_bytes())?;
        }
        let start = Instant::now();
        while self.command()? & START != 0 {
            ensure!(
                start.elapsed() < Duration::from_secs(10),
                "edu does not finish"
            );
        }
        Ok(())
    }

    fn command(&self) -> anyhow::Result<u64> {
        let mut command = [0; 8];
        self.function.read(self.registers, COMMAND, &mut command)?;
        Ok(u64::from_le_bytes(command))
    }
}
