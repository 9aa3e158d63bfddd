//! On-disk structures that exist in several forms: 32 and 64 bit, packed and padded, each in both byte orders.

use crate::Endianness;
use arrayvec::ArrayVec;

/// The on-disk form of a [`Record`].
pub type Encoded = ArrayVec<u8, 128>;

/// A structure of a file that has several forms.
///
/// [`crate::record!`] makes one from its fields: a plain structure with 64-bit fields, which programs work with, and how
/// its fields stand in each on-disk form.
pub trait Record: Sized {
    /// What tells the forms apart.
    type Form: Copy;
    /// Length of the on-disk form in bytes.
    fn encoded_len(form: Self::Form) -> usize;
    /// Reads the form at the start of `bytes`; `None` if they are too few.
    fn decode(bytes: &[u8], form: Self::Form, endianness: Endianness) -> Option<Self>;
    /// The on-disk form; `None` if a field does not fit.
    fn encode(&self, form: Self::Form, endianness: Endianness) -> Option<Encoded>;
}

/// Defines a [`Record`]: its plain structure, and for each value of the form's type how many bytes it has on disk and what
/// they are.
///
/// An on-disk field is an unsigned integer, `u32`; padding behind it, which is zero, is added to it in bytes: `u16 + 2`. A
/// form has every field, in its own order; its length is checked at compile time.
///
/// There is no on-disk `struct` and no `zerocopy` here as for the structures that have one form: they would be a type for
/// each form and each byte order, only to be copied field by field, and every dependent of the facade would wait for
/// `zerocopy-derive` and `syn`, which compile longer than all of its own.
#[macro_export]
macro_rules! record {
    (
        $(#[$doc:meta])* $plain:ident { $($(#[$field_doc:meta])* $name:ident,)* }
        $($form:ident::$variant:ident($len:literal) { $($field:ident: $type:ident $(+ $padding:literal)?,)* })*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $plain { $($(#[$field_doc])* pub $name: u64,)* }

        $(const _: () = assert!(0 $(+ size_of::<$type>() $(+ $padding)?)* == $len);)*

        impl $crate::record::Record for $plain {
            type Form = $crate::record!(@first $($form)*);

            fn encoded_len(form: Self::Form) -> usize {
                match form {
                    $($form::$variant => $len,)*
                }
            }

            fn decode(mut bytes: &[u8], form: Self::Form, endianness: $crate::Endianness) -> Option<Self> {
                match form {
                    $($form::$variant => Some(Self {
                        $($field: $crate::record::take(&mut bytes, size_of::<$type>(), 0 $(+ $padding)?, endianness)?,)*
                    }),)*
                }
            }

            fn encode(&self, form: Self::Form, endianness: $crate::Endianness) -> Option<$crate::record::Encoded> {
                let mut bytes = $crate::record::Encoded::new();
                match form {
                    $($form::$variant => {
                        $($crate::record::put(&mut bytes, self.$field, size_of::<$type>(), 0 $(+ $padding)?, endianness)?;)*
                    })*
                }
                Some(bytes)
            }
        }
    };
    (@first $form:ident $($rest:ident)*) => { $form };
}

/// Takes a field of `len` bytes from the start of `bytes`, and the `padding` bytes behind it.
#[doc(hidden)]
#[inline]
pub fn take(bytes: &mut &[u8], len: usize, padding: usize, endianness: Endianness) -> Option<u64> {
    let (field, rest) = bytes.split_at_checked(len)?;
    *bytes = rest.get(padding..)?;
    Some(endianness.decode(field))
}

/// Appends `value` in `len` bytes, and `padding` zeros; `None` if either does not fit.
#[doc(hidden)]
#[inline]
pub fn put(
    bytes: &mut Encoded,
    value: u64,
    len: usize,
    padding: usize,
    endianness: Endianness,
) -> Option<()> {
    let mut field = [0; size_of::<u64>()];
    let field = field.get_mut(..len)?;
    endianness.encode(value, field);
    if endianness.decode(field) != value {
        return None;
    }
    bytes.try_extend_from_slice(field).ok()?;
    (0..padding).try_for_each(|_| bytes.try_push(0).ok())
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "the macro is for structures of a public module")]
mod tests {
    use super::Record;
    use crate::Endianness::{Big, Little};

    #[derive(Clone, Copy)]
    pub enum Form {
        Narrow,
        Wide,
    }

    record! {
        /// A structure whose two forms differ in order, widths and padding.
        Sample {
            /// First in both.
            head,
            /// Last of one.
            tail,
        }
        Form::Narrow(5) { head: u16 + 2, tail: u8, }
        Form::Wide(12) { tail: u64, head: u32, }
    }

    const SAMPLE: Sample = Sample { head: 0x1234, tail: 0xff };

    #[test]
    fn each_form_has_its_own_order_widths_and_padding() {
        for (form, endianness, expected) in [
            (Form::Narrow, Little, &[0x34, 0x12, 0, 0, 0xff][..]),
            (Form::Narrow, Big, &[0x12, 0x34, 0, 0, 0xff]),
            (Form::Wide, Little, &[0xff, 0, 0, 0, 0, 0, 0, 0, 0x34, 0x12, 0, 0]),
            (Form::Wide, Big, &[0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0x12, 0x34]),
        ] {
            assert_eq!(SAMPLE.encode(form, endianness).unwrap().as_slice(), expected);
            assert_eq!(expected.len(), Sample::encoded_len(form));
            assert_eq!(Sample::decode(expected, form, endianness), Some(SAMPLE));
            assert_eq!(
                Sample::decode(&[expected, &[7]].concat(), form, endianness),
                Some(SAMPLE),
                "what follows is not looked at"
            );
            assert_eq!(Sample::decode(&expected[1..], form, endianness), None, "a byte is missing");
        }
    }

    #[test]
    fn padding_is_not_looked_at_but_must_be_there() {
        assert_eq!(Sample::decode(&[0x34, 0x12, 8, 9, 0xff], Form::Narrow, Little), Some(SAMPLE));
        assert_eq!(Sample::decode(&[0x34, 0x12, 0], Form::Narrow, Little), None);
    }

    #[test]
    fn a_value_that_does_not_fit_is_not_cut_off() {
        let too_large = Sample { head: 0x1_0000, tail: 0 };
        assert_eq!(too_large.encode(Form::Narrow, Little), None);
        assert!(too_large.encode(Form::Wide, Big).is_some());
        assert_eq!(Sample { head: 0, tail: 0x100 }.encode(Form::Narrow, Big), None);
    }
}
