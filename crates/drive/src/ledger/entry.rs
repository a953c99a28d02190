//! What is known of one reading, in two bytes: ten million of them are 20 MB.

/// The highest version that fits: a reading is corrected at most so often.
pub const VERSION_MAX: u8 = 3;

const VERSION: u16 = 0b11;
const ATTEMPTED: u16 = 1 << 2;
const ACKED_AT: u16 = 3;
const ACKED: u16 = 1 << 5;
const REFUSED: u16 = 1 << 6;
const UNANSWERED: u16 = 1 << 7;

/// One reading: which versions were attempted, which of them are acknowledged.
///
/// Versions rise one by one, and the next is attempted only when the one before is acknowledged and no attempt of it is
/// without an answer; so all versions up to the acknowledged one are, and at most one is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry(u16);

/// Counts of versions of readings; each version was a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent at least once.
    pub attempted: u64,
    /// Durable, by the server's word.
    pub acked: u64,
    /// Not kept, by the server's word.
    pub refused: u64,
    /// Nobody said.
    pub unknown: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            attempted: self.attempted + other.attempted,
            acked: self.acked + other.acked,
            refused: self.refused + other.refused,
            unknown: self.unknown + other.unknown,
        }
    }
}

impl Entry {
    /// Whether it was ever sent.
    pub fn attempted(self) -> bool {
        self.0 & ATTEMPTED != 0
    }

    /// The newest version that was sent.
    pub fn version(self) -> u8 {
        (self.0 & VERSION) as u8
    }

    /// The newest version that is acknowledged.
    pub fn acked(self) -> Option<u8> {
        (self.0 & ACKED != 0).then_some(((self.0 >> ACKED_AT) & VERSION) as u8)
    }

    /// Notes that a version is about to be sent, for the first time or again. It counts as unanswered until an answer comes.
    pub fn attempt(&mut self, version: u8) {
        let version = u16::from(version.min(VERSION_MAX));
        if version != self.0 & VERSION {
            self.0 &= !(REFUSED | UNANSWERED);
        }
        self.0 = (self.0 & !VERSION) | version | ATTEMPTED;
    }

    /// Notes that the server has it.
    pub fn ack(&mut self, version: u8) {
        let version = u16::from(version.min(VERSION_MAX));
        self.0 = (self.0 & !(VERSION << ACKED_AT)) | ACKED | (version << ACKED_AT);
    }

    /// Notes that the server will not keep it.
    pub fn refuse(&mut self) {
        self.0 |= REFUSED;
    }

    /// Notes that an attempt of the newest version got no answer: it may be kept now, later, or never.
    pub fn lose_answer(&mut self) {
        self.0 |= UNANSWERED;
    }

    /// Whether the next version may be sent: this one is acknowledged, and no attempt of it can still arrive.
    pub fn correctable(self) -> bool {
        self.acked() == Some(self.version()) && self.0 & UNANSWERED == 0 && self.version() < VERSION_MAX
    }

    /// Whether it may be absent.
    pub fn may_be_absent(self) -> bool {
        self.acked().is_none()
    }

    /// Whether a version may be what is stored: none older than the last acknowledged one, none that was refused with every
    /// attempt answered.
    pub fn may_be(self, version: u8) -> bool {
        let refused = self.0 & REFUSED != 0 && self.0 & UNANSWERED == 0 && self.acked() != Some(version);
        let newest = version == self.version();
        self.attempted()
            && version <= self.version()
            && version >= self.acked().unwrap_or(0)
            && !(newest && refused)
    }

    /// This reading's versions, counted.
    pub fn counts(self) -> Counts {
        if !self.attempted() {
            return Counts::default();
        }
        let acked = self.acked().map_or(0, |version| u64::from(version) + 1);
        let attempted = u64::from(self.version()) + 1;
        let open = attempted - acked.min(attempted);
        let refused = if self.0 & REFUSED != 0 { open } else { 0 };
        Counts { attempted, acked, refused, unknown: open - refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Entry {
        let mut entry = Entry::default();
        entry.attempt(0);
        entry
    }

    #[test]
    fn what_is_acknowledged_must_be_there_and_what_nobody_answered_may_be() {
        let mut entry = sent();
        entry.lose_answer();
        assert!(entry.may_be_absent() && entry.may_be(0));
        assert_eq!(entry.counts(), Counts { attempted: 1, unknown: 1, ..Default::default() });
        entry.attempt(0);
        entry.ack(0);
        assert!(!entry.may_be_absent() && entry.may_be(0) && !entry.may_be(1));
        assert!(!entry.correctable(), "its first attempt may still arrive, after the correction");
        assert_eq!(entry.counts(), Counts { attempted: 1, acked: 1, ..Default::default() });
    }

    #[test]
    fn after_an_acknowledged_correction_the_old_value_is_a_loss() {
        let mut entry = sent();
        entry.ack(0);
        assert!(entry.correctable());
        entry.attempt(1);
        assert!(entry.may_be(0) && entry.may_be(1), "nobody has said yet");
        entry.ack(1);
        assert!(!entry.may_be(0) && entry.may_be(1));
        assert_eq!(entry.counts(), Counts { attempted: 2, acked: 2, ..Default::default() });
    }

    #[test]
    fn what_was_refused_may_not_be_there_unless_another_attempt_went_unanswered() {
        let mut entry = sent();
        entry.refuse();
        assert!(entry.may_be_absent() && !entry.may_be(0));
        assert_eq!(entry.counts(), Counts { attempted: 1, refused: 1, ..Default::default() });
        entry.lose_answer();
        assert!(entry.may_be(0));
    }

    #[test]
    fn a_refused_correction_leaves_the_first_value() {
        let mut entry = sent();
        entry.ack(0);
        entry.attempt(1);
        entry.refuse();
        assert!(entry.may_be(0) && !entry.may_be(1) && !entry.may_be_absent());
    }

    #[test]
    fn what_was_never_sent_may_not_be_there() {
        assert!(!Entry::default().may_be(0));
        assert_eq!(Entry::default().counts(), Counts::default());
    }
}
