//! The values of a pickle.

/// Index of a node in its pickle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Id(pub(super) u32);

impl Id {
    /// The most common values are shared by all pickles, so that they take no memory.
    pub(super) const NONE: Id = Id(0);
    pub(super) const FALSE: Id = Id(1);
    pub(super) const TRUE: Id = Id(2);
    pub(super) const EMPTY_TUPLE: Id = Id(3);
}

pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, whose digits are not kept because no reader needs them.
    BigInt,
    Float(f64),
    Str(Box<str>),
    Bytes(Box<[u8]>),
    List(Vec<Id>),
    Tuple(Box<[Id]>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module.name`.
    Global(Box<str>),
    Object {
        class: Id,
        args: Id,
        state: Id,
        /// A dict or list of the entries added to it, or `NONE`.
        content: Id,
    },
    Persistent(Id),
}

/// A pickle that has been read.
pub struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
    /// Memory that was counted while reading.
    pub(crate) spent_bytes: usize,
}

impl Pickle {
    /// Interprets a whole pickle.
    ///
    /// `location` names it in messages; `budget_bytes` bounds the memory that it may take.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged), [`Error::RefusedGlobal`](crate::Error::RefusedGlobal).
    pub fn read(location: &str, bytes: &[u8], budget_bytes: usize) -> crate::Result<Pickle> {
        super::machine::read(location, bytes, budget_bytes)
    }

    /// The value of the pickle.
    pub fn root(&self) -> Value<'_> {
        self.value(self.root)
    }

    fn value(&self, id: Id) -> Value<'_> {
        Value { pickle: self, id }
    }
}

/// A value of a [`Pickle`]. Accessors of the wrong type return `None`.
#[derive(Clone, Copy)]
pub struct Value<'p> {
    pickle: &'p Pickle,
    id: Id,
}

/// A class or function with its arguments. It was not constructed or called.
pub struct Object<'p> {
    /// `module.name`.
    pub class: &'p str,
    /// The arguments, a tuple.
    pub args: Value<'p>,
    /// The state that would be set on the object, most often a dict of its attributes.
    pub state: Value<'p>,
    /// Entries (a dict) or elements (a list) that were added to the object.
    pub content: Value<'p>,
}

impl<'p> Value<'p> {
    pub(super) fn node(self) -> &'p Node {
        // Every id was made together with its node; an id of another pickle would read as None.
        self.pickle
            .nodes
            .get(self.id.0 as usize)
            .unwrap_or(&Node::None)
    }

    /// Whether it is Python's `None`.
    pub fn is_none(self) -> bool {
        matches!(self.node(), Node::None)
    }

    /// A boolean.
    pub fn as_bool(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A non-negative integer.
    pub fn as_usize(self) -> Option<usize> {
        self.as_i64()?.try_into().ok()
    }

    /// A string.
    pub fn as_str(self) -> Option<&'p str> {
        match self.node() {
            Node::Str(value) => Some(value),
            _ => None,
        }
    }

    /// A byte string.
    pub fn as_bytes(self) -> Option<&'p [u8]> {
        match self.node() {
            Node::Bytes(value) => Some(value),
            _ => None,
        }
    }

    /// The elements of a list, tuple or set.
    pub fn elements(self) -> Option<impl ExactSizeIterator<Item = Value<'p>> + Clone> {
        let ids: &'p [Id] = match self.node() {
            Node::List(ids) | Node::Set(ids) => ids,
            Node::Tuple(ids) => ids,
            _ => return None,
        };
        Some(ids.iter().map(move |&id| self.pickle.value(id)))
    }

    /// Element `index` of a list or tuple.
    pub fn element(self, index: usize) -> Option<Value<'p>> {
        self.elements()?.nth(index)
    }

    /// The entries of a dict, in the order in which they were added.
    pub fn entries(self) -> Option<impl ExactSizeIterator<Item = (Value<'p>, Value<'p>)>> {
        match self.node() {
            Node::Dict(entries) => Some(
                entries
                    .iter()
                    .map(move |&(key, value)| (self.pickle.value(key), self.pickle.value(value))),
            ),
            _ => None,
        }
    }

    /// The value of a dict at a string key; the last one if the key repeats, as in Python.
    pub fn get(self, key: &str) -> Option<Value<'p>> {
        match self.node() {
            Node::Dict(entries) => entries
                .iter()
                .rev()
                .map(|&(key, value)| (self.pickle.value(key), self.pickle.value(value)))
                .find(|(found, _)| found.as_str() == Some(key))
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value of nested dicts at these string keys, outermost first.
    pub fn at(self, keys: &[&str]) -> Option<Value<'p>> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    /// A class or function, as `module.name`.
    pub fn as_global(self) -> Option<&'p str> {
        match self.node() {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }

    /// An object.
    pub fn as_object(self) -> Option<Object<'p>> {
        match *self.node() {
            Node::Object {
                class,
                args,
                state,
                content,
            } => Some(Object {
                class: self.pickle.value(class).as_global()?,
                args: self.pickle.value(args),
                state: self.pickle.value(state),
                content: self.pickle.value(content),
            }),
            _ => None,
        }
    }

    /// The key of a value that is stored outside the pickle; in PyTorch's files, a storage.
    pub fn as_persistent(self) -> Option<Value<'p>> {
        match *self.node() {
            Node::Persistent(key) => Some(self.pickle.value(key)),
            _ => None,
        }
    }

    /// A short description for a message.
    pub fn describe(self) -> String {
        use crate::error::shown;
        match self.node() {
            Node::None => "None".into(),
            Node::Bool(true) => "True".into(),
            Node::Bool(false) => "False".into(),
            Node::Int(value) => format!("the integer {value}"),
            Node::BigInt => "an integer of more than 64 bits".into(),
            Node::Float(value) => format!("the number {value}"),
            Node::Str(value) => format!("the string {}", shown(value)),
            Node::Bytes(value) => format!("{} bytes", value.len()),
            Node::List(ids) => format!("a list of {}", ids.len()),
            Node::Tuple(ids) => format!("a tuple of {}", ids.len()),
            Node::Set(ids) => format!("a set of {}", ids.len()),
            Node::Dict(entries) => format!("a dict of {}", entries.len()),
            Node::Global(name) => format!("the name {}", shown(name)),
            Node::Object { class, .. } => {
                format!(
                    "an object of {}",
                    shown(self.pickle.value(*class).as_global().unwrap_or_default())
                )
            }
            Node::Persistent(_) => "a storage".into(),
        }
    }
}
