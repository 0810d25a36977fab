//! Measures the strings of a JSON text while it arrives.
//!
//! A JSON body may need six characters for one byte of its value, so its own length says little. The
//! gauge counts what each string will be once unescaped, so that reading can end at the bound of the
//! value and not at six times that. It judges no grammar: the parser does, once all is there.

/// Counts through a text, piece by piece.
#[derive(Clone, Debug, Default)]
pub(crate) struct StringGauge {
    place: Place,
    /// Unescaped bytes of the string at hand.
    string: usize,
    longest: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Outside,
    Inside,
    /// After a backslash.
    Escape,
    /// In the digits of `\uXXXX`: how many are still to come, and what they are so far.
    Unicode(u8, u16),
}

impl StringGauge {
    /// Takes the next piece; returns the unescaped bytes of the longest string so far.
    pub(crate) fn advance(&mut self, piece: &[u8]) -> usize {
        for &byte in piece {
            self.step(byte);
        }
        self.longest
    }

    fn step(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (Place::Outside, b'"') => {
                self.string = 0;
                Place::Inside
            }
            (Place::Outside, _) => Place::Outside,
            (Place::Inside, b'"') => Place::Outside,
            (Place::Inside, b'\\') => Place::Escape,
            (Place::Inside, _) => self.count(1),
            (Place::Escape, b'u') => Place::Unicode(4, 0),
            (Place::Escape, _) => self.count(1),
            (Place::Unicode(left, code), digit) => {
                let digit = char::from(digit).to_digit(16).unwrap_or(0) as u16;
                let code = code << 4 | digit;
                match left {
                    1 => self.count(utf8_bytes(code)),
                    _ => Place::Unicode(left - 1, code),
                }
            }
        };
    }

    fn count(&mut self, bytes: usize) -> Place {
        self.string += bytes;
        self.longest = self.longest.max(self.string);
        Place::Inside
    }
}

/// The UTF-8 bytes of a UTF-16 code unit; a surrogate is half of a character of four.
fn utf8_bytes(unit: u16) -> usize {
    match unit {
        0..0x80 => 1,
        0x80..0x800 | 0xD800..0xE000 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn measure(text: &str) -> usize {
        StringGauge::default().advance(text.as_bytes())
    }

    #[test]
    fn strings_are_measured_unescaped() {
        for (text, bytes) in [
            ("{}", 0),
            (r#"{"a":"bcd"}"#, 3),
            (r#""\"\\\n""#, 3),
            (r#""\u0041\u00e4\u20ac""#, 6),
            (r#""\ud83d\ude00""#, 4),
            ("\"ä€\"", 5),
            (r#""open"#, 4),
        ] {
            assert_eq!(measure(text), bytes, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_parser(text in any::<String>(), cut in any::<prop::sample::Index>()) {
            let json = serde_json::to_string(&text).unwrap();
            let (one, two) = json.as_bytes().split_at(cut.index(json.len() + 1));
            let mut gauge = StringGauge::default();
            gauge.advance(one);
            prop_assert_eq!(gauge.advance(two), text.len());
        }
    }
}
