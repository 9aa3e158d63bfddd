//! On-disk structures that exist in several forms: 32 and 64 bit, packed and padded, each in both byte orders.

use crate::Endianness;
use arrayvec::ArrayVec;

/// The on-disk form of a [`Record`].
pub type Encoded = ArrayVec<u8, 128>;

/// A structure of a file that has several forms.
///
/// [`crate::record!`] makes one from its fields: the plain form, with 64-bit fields, that programs work with, and a
/// `zerocopy` structure for each on-disk form.
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

/// Defines a [`Record`]: its plain form and the on-disk forms, each for a value of the form's type.
///
/// A field's on-disk type is one of `zerocopy`'s integers, or anything with its `new` and `get`. The crate that uses this
/// depends on `zerocopy` and `zerocopy-derive`.
#[macro_export]
macro_rules! record {
    (
        $(#[$doc:meta])* $plain:ident { $($(#[$field_doc:meta])* $name:ident,)* }
        $($form:ident::$variant:ident => $disk:ident($len:literal) { $($disk_name:ident: $type:ident,)* })*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $plain { $($(#[$field_doc])* pub $name: u64,)* }

        $(
            #[doc = concat!("On-disk form of [`", stringify!($plain), "`], ", $len, " bytes.")]
            #[derive(Clone, Copy, Debug, zerocopy_derive::FromBytes, zerocopy_derive::IntoBytes, zerocopy_derive::Immutable, zerocopy_derive::Unaligned)]
            #[repr(C)]
            pub struct $disk<O: zerocopy::ByteOrder> {
                $(#[doc = concat!("See [`", stringify!($plain), "::", stringify!($disk_name), "`].")] pub $disk_name: $type<O>,)*
            }
            const _: () = assert!(size_of::<$disk<zerocopy::LittleEndian>>() == $len);

            impl<O: zerocopy::ByteOrder> $disk<O> {
                fn plain(bytes: &[u8]) -> Option<$plain> {
                    let (disk, _) = <Self as zerocopy::FromBytes>::read_from_prefix(bytes).ok()?;
                    Some($plain { $($disk_name: disk.$disk_name.get().into(),)* })
                }

                fn disk(plain: &$plain) -> Option<$crate::record::Encoded> {
                    let disk = Self { $($disk_name: $type::new(plain.$disk_name.try_into().ok()?),)* };
                    zerocopy::IntoBytes::as_bytes(&disk).try_into().ok()
                }
            }
        )*

        impl $crate::record::Record for $plain {
            type Form = $crate::record!(@first $($form)*);

            fn encoded_len(form: Self::Form) -> usize {
                match form {
                    $($form::$variant => $len,)*
                }
            }

            fn decode(bytes: &[u8], form: Self::Form, endianness: $crate::Endianness) -> Option<Self> {
                match (form, endianness) {
                    $(
                        ($form::$variant, $crate::Endianness::Little) => $disk::<zerocopy::LittleEndian>::plain(bytes),
                        ($form::$variant, $crate::Endianness::Big) => $disk::<zerocopy::BigEndian>::plain(bytes),
                    )*
                }
            }

            fn encode(&self, form: Self::Form, endianness: $crate::Endianness) -> Option<$crate::record::Encoded> {
                match (form, endianness) {
                    $(
                        ($form::$variant, $crate::Endianness::Little) => $disk::<zerocopy::LittleEndian>::disk(self),
                        ($form::$variant, $crate::Endianness::Big) => $disk::<zerocopy::BigEndian>::disk(self),
                    )*
                }
            }
        }
    };
    (@first $form:ident $($rest:ident)*) => { $form };
}
