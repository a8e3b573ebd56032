//! The orientation in EXIF data.
//!
//! EXIF is a TIFF structure: a byte order, the offset of a directory, and in it entries of 12 bytes. Tag 0x0112 gives
//! the orientation of the camera. If the data cannot be read, the picture is taken as upright, as in other programs:
//! EXIF says nothing about the pixels.

use crate::picture::Picture;

/// How the stored rows and columns must be turned; the values are those of the EXIF standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orientation(u8);

const TAG: u16 = 0x0112;
const SHORT: u16 = 3;

impl Orientation {
    pub(super) const UPRIGHT: Self = Self(1);

    /// The orientation in the EXIF data of a file, with or without the `Exif` header that JPEG puts before it.
    pub(super) fn of(exif: Option<&[u8]>) -> Self {
        exif.and_then(find).map_or(Self::UPRIGHT, Self)
    }

    /// Turns the picture upright.
    pub(super) fn apply(self, picture: Picture) -> Picture {
        if self == Self::UPRIGHT {
            return picture;
        }
        let (width, height, channels) = picture.shape();
        let is_turned = self.0 >= 5;
        let shape = match is_turned {
            true => (height, width, channels),
            false => (width, height, channels),
        };
        Picture::from_fn(shape, |x, y, channel| {
            let (right, down) = (shape.0 - 1 - x, shape.1 - 1 - y);
            let (x, y) = match self.0 {
                2 => (right, y),
                3 => (right, down),
                4 => (x, down),
                5 => (y, x),
                6 => (y, right),
                7 => (down, right),
                8 => (down, x),
                _ => (x, y),
            };
            picture.at(x, y, channel)
        })
    }
}

fn find(exif: &[u8]) -> Option<u8> {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let is_big_endian = match tiff.get(..4)? {
        b"II*\0" => false,
        b"MM\0*" => true,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(match is_big_endian {
            true => u16::from_be_bytes(bytes),
            false => u16::from_le_bytes(bytes),
        })
    };
    let long = |at: usize| {
        let (first, second) = (u32::from(short(at)?), u32::from(short(at + 2)?));
        Some(match is_big_endian {
            true => (first << 16) | second,
            false => (second << 16) | first,
        })
    };
    let directory = long(4)? as usize;
    let entries = short(directory)?;
    for entry in 0..usize::from(entries) {
        let at = directory + 2 + 12 * entry;
        if short(at)? == TAG {
            let is_number = short(at + 2)? == SHORT && long(at + 4)? == 1;
            let value = short(at + 8)?;
            return (is_number && (1..=8).contains(&value)).then_some(value as u8);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exif(big_endian: bool, orientation: u16) -> Vec<u8> {
        let short = |v: u16| {
            if big_endian {
                v.to_be_bytes()
            } else {
                v.to_le_bytes()
            }
        };
        let long = |v: u32| {
            if big_endian {
                v.to_be_bytes()
            } else {
                v.to_le_bytes()
            }
        };
        let mut bytes = if big_endian {
            b"MM\0*".to_vec()
        } else {
            b"II*\0".to_vec()
        };
        bytes.extend(long(8));
        bytes.extend(short(2));
        for (tag, value) in [(0x010f, 7), (TAG, orientation)] {
            bytes.extend(short(tag));
            bytes.extend(short(SHORT));
            bytes.extend(long(1));
            bytes.extend(short(value));
            bytes.extend([0, 0]);
        }
        bytes
    }

    #[test]
    fn the_tag_is_found_in_both_byte_orders() {
        for big_endian in [false, true] {
            for orientation in 1..=8 {
                let plain = exif(big_endian, orientation);
                let with_header = [b"Exif\0\0", plain.as_slice()].concat();
                for bytes in [plain, with_header] {
                    assert_eq!(Orientation::of(Some(&bytes)).0, orientation as u8);
                }
            }
            for wrong in [0, 9, 65535] {
                assert_eq!(
                    Orientation::of(Some(&exif(big_endian, wrong))),
                    Orientation::UPRIGHT
                );
            }
        }
        assert_eq!(Orientation::of(None), Orientation::UPRIGHT);
    }

    /// The letter F, stored in each orientation, is decoded as F.
    #[test]
    fn all_eight_orientations_come_out_upright() {
        let stored: [(u8, [&str; 5]); 8] = [
            (1, ["###", "#..", "##.", "#..", "#.."]),
            (2, ["###", "..#", ".##", "..#", "..#"]),
            (3, ["..#", "..#", ".##", "..#", "###"]),
            (4, ["#..", "#..", "##.", "#..", "###"]),
            (5, ["#####", "#.#..", "#....", "", ""]),
            (6, ["#....", "#.#..", "#####", "", ""]),
            (7, ["....#", "..#.#", "#####", "", ""]),
            (8, ["#####", "..#.#", "....#", "", ""]),
        ];
        let picture = |rows: &[&str; 5]| {
            let rows: Vec<&[u8]> = rows
                .iter()
                .map(|r| r.as_bytes())
                .filter(|r| !r.is_empty())
                .collect();
            Picture::new(rows[0].len(), rows.len(), 1, rows.concat()).unwrap()
        };
        let upright = picture(&stored[0].1);
        for (orientation, rows) in stored {
            assert_eq!(
                Orientation(orientation).apply(picture(&rows)),
                upright,
                "{orientation}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), start in 0..3) {
            if start < 2 {
                let head: &[u8] = if start == 0 { b"II*\0" } else { b"MM\0*" };
                bytes.splice(0..0, head.iter().copied());
            }
            let orientation = Orientation::of(Some(&bytes)).0;
            prop_assert!((1..=8).contains(&orientation));
        }
    }
}
