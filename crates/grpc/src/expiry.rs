//! When a certificate ends (RFC 5280, 4.1.2.5), read from its DER (X.690): what no crate that is here anyway tells.

/// `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version?, serial, signature, issuer, validity, … }, … }`
/// with `Validity ::= SEQUENCE { notBefore, notAfter }`. As unix time in seconds; none where it is not so built.
pub(crate) fn not_after(certificate: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (certificate, _) = take(certificate, Some(SEQUENCE))?;
    let (mut fields, _) = take(certificate, Some(SEQUENCE))?;
    if fields.first() == Some(&VERSION) {
        (_, fields) = take(fields, None)?;
    }
    for _serial_signature_issuer in 0..3 {
        (_, fields) = take(fields, None)?;
    }
    let (validity, _) = take(fields, Some(SEQUENCE))?;
    let (_, not_after) = take(validity, None)?;
    let tag = *not_after.first()?;
    let (text, _) = take(not_after, None)?;
    time(tag, text)
}

/// The content of the element that `from` begins with, of this tag where one is given, and what follows it.
fn take(from: &[u8], tag: Option<u8>) -> Option<(&[u8], &[u8])> {
    let (found, rest) = from.split_first()?;
    if tag.is_some_and(|tag| tag != *found) {
        return None;
    }
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let (bytes, after) = rest.split_at_checked(length - 0x80)?;
        if bytes.len() > 4 {
            return None; // no certificate is so long
        }
        length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = after;
    }
    rest.split_at_checked(length)
}

/// A UTCTime (`YYMMDDHHMMSSZ`, of 1950 to 2049) or a GeneralizedTime (`YYYYMMDDHHMMSSZ`).
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (century, digits) = match (tag, digits.len()) {
        (0x17, 12) => (if digits < "50" { 2_000 } else { 1_900 }, digits),
        (0x18, 14) => (digits.get(..2)?.parse::<i64>().ok()? * 100, digits.get(2..)?),
        _ => return None,
    };
    let number = |at: usize| digits.get(at..at + 2)?.parse::<i64>().ok();
    let days = days_since_epoch(century + number(0)?, number(2)?, number(4)?);
    Some(((days * 24 + number(6)?) * 60 + number(8)?) * 60 + number(10)?)
}

/// Days from 1970-01-01 in the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut element = vec![tag, 0x82];
        element.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        element.extend(content);
        element
    }

    fn certificate(version: bool, not_after: &[u8]) -> Vec<u8> {
        let validity = [element(0x17, b"250101000000Z"), not_after.to_vec()].concat();
        let mut fields = if version { element(0xa0, &[2, 1, 2]) } else { Vec::new() };
        for field in
            [element(2, &[7]), element(0x30, &[6]), element(0x30, b"issuer"), element(0x30, &validity)]
        {
            fields.extend(field);
        }
        element(0x30, &[element(0x30, &fields), element(0x30, b"rest")].concat())
    }

    #[test]
    fn both_forms_of_time_are_read_with_and_without_a_version() {
        let utc = element(0x17, b"330518033320Z"); // 2,000,000,000 s
        let general = element(0x18, b"20330518033320Z");
        for not_after_field in [utc, general] {
            for version in [true, false] {
                assert_eq!(not_after(&certificate(version, &not_after_field)), Some(2_000_000_000));
            }
        }
        assert_eq!(not_after(&certificate(true, &element(0x17, b"491231235959Z"))), Some(2_524_607_999));
        assert_eq!(not_after(&certificate(true, &element(0x18, b"20500101000000Z"))), Some(2_524_608_000));
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let whole = certificate(true, &element(0x17, b"330518033320Z"));
        for length in 0..whole.len() - 12 {
            assert_eq!(not_after(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(not_after(b"-----BEGIN CERTIFICATE-----"), None);
    }
}
