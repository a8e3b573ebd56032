//! JSON-like values.

use crate::error::shown;

/// A value of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigValue {
    /// Nothing; the same as an absent key.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Text.
    String(String),
    /// Values in order.
    List(Vec<ConfigValue>),
    /// Keys and values, in the order of the file.
    Map(Vec<(String, ConfigValue)>),
}

impl ConfigValue {
    /// What an unquoted word means, as in YAML 1.1; numbers such as `1e-5` count as numbers too.
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
        // Words such as `inf` or `infinity` are text, as in YAML.
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

    /// What a map has under a key.
    pub fn get(&self, key: &str) -> Option<&ConfigValue> {
        match self {
            ConfigValue::Map(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// An integer that counts something.
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

    /// True or false.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            ConfigValue::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            ConfigValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// Values in order.
    pub fn as_list(&self) -> Option<&[ConfigValue]> {
        match self {
            ConfigValue::List(values) => Some(values),
            _ => None,
        }
    }

    /// What it is, in a few words for a message.
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
