//! JSON-like values.

use crate::error::shown;

/// A value of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigValue {
    /// Null, which is the same as an absent key.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A string.
    String(String),
    /// A list of values.
    List(Vec<ConfigValue>),
    /// Keys and values, in the order of the file.
    Map(Vec<(String, ConfigValue)>),
}

impl ConfigValue {
    /// The value of an unquoted word, as in YAML 1.1; words such as `1e-5` count as numbers too.
    pub(super) fn from_word(word: &str) -> ConfigValue {
        match word {
            "" | "~" | "null" | "Null" | "NULL" => return ConfigValue::Null,
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
                return ConfigValue::Bool(true);
            }
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
                return ConfigValue::Bool(false);
            }
            _ => {}
        }
        // Words such as `inf` or `infinity` are strings, as in YAML.
        let numeric = word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        if !numeric {
            return ConfigValue::String(word.into());
        }
        if let Ok(int) = word.parse() {
            return ConfigValue::Int(int);
        }
        match word.parse::<f64>() {
            Ok(float) if float.is_finite() => ConfigValue::Float(float),
            _ => ConfigValue::String(word.into()),
        }
    }

    /// The value of a map at a key.
    pub fn get(&self, key: &str) -> Option<&ConfigValue> {
        match self {
            ConfigValue::Map(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// A non-negative integer.
    pub fn as_usize(&self) -> Option<usize> {
        match self {
            ConfigValue::Int(int) => (*int).try_into().ok(),
            _ => None,
        }
    }

    /// A number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            ConfigValue::Int(int) => Some(*int as f64),
            ConfigValue::Float(float) => Some(*float),
            _ => None,
        }
    }

    /// A boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            ConfigValue::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            ConfigValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// The values of a list.
    pub fn as_list(&self) -> Option<&[ConfigValue]> {
        match self {
            ConfigValue::List(values) => Some(values),
            _ => None,
        }
    }

    /// A short description for a message.
    pub(super) fn describe(&self) -> String {
        match self {
            ConfigValue::Null => "null".into(),
            ConfigValue::Bool(value) => value.to_string(),
            ConfigValue::Int(value) => value.to_string(),
            ConfigValue::Float(value) => format!("{value:?}"),
            ConfigValue::String(value) => shown(value),
            ConfigValue::List(values) => format!("a list of {}", values.len()),
            ConfigValue::Map(entries) => format!("a mapping of {}", entries.len()),
        }
    }
}
