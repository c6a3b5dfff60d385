//! CRC-32 as in IEEE 802.3, which event streams and gzip use. Its table has 1 KiB, where that of `crc32fast` has 16.

/// The checksum of the bytes so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc(u32);

impl Default for Crc {
    fn default() -> Self {
        Crc(u32::MAX)
    }
}

impl Crc {
    #[expect(clippy::indexing_slicing, reason = "computed by the compiler, which would refuse it")]
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let at = usize::from((self.0 as u8) ^ byte);
            self.0 = (self.0 >> 8) ^ Crc::TABLE.get(at).copied().unwrap_or_default();
        }
    }

    /// Of all bytes so far.
    pub(crate) fn value(self) -> u32 {
        !self.0
    }
}
