//! Calls, which are recorded but not executed.

use super::input::Fault;
use super::machine::{ID_BYTES, Machine, Step};
use super::value::{Id, Node};
use crate::error::shown;

impl Machine<'_> {
    pub(super) fn call_with(&mut self, class: Id, args: Vec<Id>) -> Step {
        self.charge(args.len() * ID_BYTES)?;
        let args = self.add(Node::Tuple(args.into()))?;
        self.call(class, args)
    }

    /// Records a call. A few calls that only rearrange existing values are executed.
    pub(super) fn call(&mut self, class: Id, args: Id) -> Step {
        let Some(Node::Global(name)) = self.nodes.get(class.0 as usize) else {
            return Err(Fault::new(
                "something else than a function or class is called",
                "a value",
            )
            .into());
        };
        let Some(Node::Tuple(given)) = self.nodes.get(args.0 as usize) else {
            return Err(Fault::new("a call's arguments are not a tuple", shown(name)).into());
        };
        let node = match (&**name, &**given) {
            (
                "collections.OrderedDict" | "collections.defaultdict" | "collections.Counter",
                given,
            ) => self.dict(given.last().copied())?,
            (
                "builtins.set" | "builtins.frozenset" | "__builtin__.set" | "__builtin__.frozenset",
                [given],
            ) => {
                let ids = self.list(*given)?;
                self.charge(ids.len() * ID_BYTES)?;
                Node::Set(ids)
            }
            ("_codecs.encode", [given, ..]) => {
                let bytes = self.latin1(*given)?;
                self.charge(bytes.len())?;
                Node::Bytes(bytes)
            }
            _ => Node::Object {
                class,
                args,
                state: Id::NONE,
                content: Id::NONE,
            },
        };
        self.push(node)
    }

    /// The dict that `OrderedDict([[key, value], ...])` makes; empty if there is no argument or only a factory.
    fn dict(&mut self, given: Option<Id>) -> Step<Node> {
        let pairs = match given.map(|id| (id, self.nodes.get(id.0 as usize))) {
            Some((id, Some(Node::List(_)))) => self.list(id)?,
            Some((_, Some(Node::Dict(entries)))) => {
                let entries = entries.clone();
                self.charge(2 * entries.len() * ID_BYTES)?;
                return Ok(Node::Dict(entries));
            }
            _ => Vec::new(),
        };
        self.charge(2 * pairs.len() * ID_BYTES)?;
        let mut entries = Vec::new();
        for pair in pairs {
            match *self.list(pair)? {
                [key, value] => entries.push((key, value)),
                _ => {
                    return Err(Fault::new("a dict's entry is not a pair", "something else").into());
                }
            }
        }
        Ok(Node::Dict(entries))
    }

    fn list(&self, id: Id) -> Step<Vec<Id>> {
        let ids: &[Id] = match self.nodes.get(id.0 as usize) {
            Some(Node::List(ids) | Node::Set(ids)) => ids,
            Some(Node::Tuple(ids)) => ids,
            _ => {
                return Err(Fault::new(
                    "a collection is made from something else than a list",
                    "a value",
                )
                .into());
            }
        };
        // The caller that keeps the copy counts its memory; it is never longer than the existing list.
        Ok(ids.to_vec())
    }

    /// Python 3 writes byte strings for old protocols as Latin-1 text.
    fn latin1(&self, id: Id) -> Step<Box<[u8]>> {
        let Some(Node::Str(string)) = self.nodes.get(id.0 as usize) else {
            return Err(Fault::new(
                "bytes are made from something else than a string",
                "a value",
            )
            .into());
        };
        string
            .chars()
            .map(|c| {
                u8::try_from(c).map_err(|_| {
                    Fault::new("a byte string has a wide character", format!("{c:?}")).into()
                })
            })
            .collect()
    }

    /// Records the state that would be set on an object.
    pub(super) fn build(&mut self) -> Step {
        let given = self.pop()?;
        let top = self.top()?;
        match self.nodes.get_mut(top.0 as usize) {
            Some(Node::Object { state, .. }) => {
                *state = given;
                Ok(())
            }
            // Attributes of an OrderedDict, such as a state dict's `_metadata`, say nothing about its entries.
            Some(Node::Dict(_)) => Ok(()),
            _ => Err(Fault::new(
                "attributes are set on something else than an object",
                "a value",
            )
            .into()),
        }
    }
}
