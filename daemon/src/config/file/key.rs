//! A key of the file: absent, or a value with its place, or the reason that it cannot be read.
//! Reading one never fails, so that one wrong value does not hide the next.

use std::ops::Range;

use serde::de::value::Error as NamesError;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use toml::Spanned;

/// A key that may be absent.
#[derive(Debug, Clone)]
pub(in crate::config) struct Key<T>(pub(in crate::config) Option<Given<T>>);

/// What the file gives for a key.
#[derive(Debug, Clone)]
pub(in crate::config) struct Given<T> {
    /// Bytes of the file.
    pub(in crate::config) at: Range<usize>,
    /// The value as TOML.
    pub(in crate::config) text: String,
    /// The value, or why it is none.
    pub(in crate::config) value: Result<T, String>,
}

impl<T> Default for Key<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Key<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<toml::Value>::deserialize(deserializer)?;
        let (at, value) = (spanned.span(), spanned.into_inner());
        let text = match &value {
            toml::Value::String(text) => text.escape_debug().to_string(),
            other => other.to_string(),
        };
        let value =
            T::deserialize(value).map_err(|error| error.message().trim().replace('\n', " "));
        Ok(Self(Some(Given { at, text, value })))
    }
}

/// The keys that a table may have.
pub(in crate::config) fn keys_of<T: Deserialize<'static>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // The one answer that counts is what `deserialize_struct` is told; it always ends in an error.
    let _refused = T::deserialize(Names(&mut names)).is_err();
    names
}

/// A deserializer that only listens to which fields are asked for.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = NamesError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, NamesError> {
        *self.0 = fields;
        Err(NamesError::custom("names only"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, NamesError> {
        Err(NamesError::custom("names only"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
