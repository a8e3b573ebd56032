//! The stack machine, which cannot call anything.

use std::collections::HashMap;

use super::globals;
use super::input::{Fault, Input, text};
use super::literal::{decimal, long, raw_unicode, unquote};
use super::opcode as op;
use super::value::{Id, Node, Pickle};
use crate::error::shown;
use crate::{Error, Result};

/// Memory counted for a node: its place in a vector that doubles as it grows.
const NODE_BYTES: usize = 2 * size_of::<Node>();
pub(super) const ID_BYTES: usize = 2 * size_of::<Id>();
const MEMO_BYTES: usize = 4 * size_of::<(u32, Id)>();

/// The reason why reading ends early.
pub(super) enum Stop {
    Fault(Fault),
    Refused(String),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

pub(super) type Step<T = ()> = Result<T, Stop>;

pub(super) fn read(location: &str, bytes: &[u8], budget_bytes: usize) -> Result<Pickle> {
    let mut machine = Machine {
        input: Input::new(bytes),
        nodes: vec![
            Node::None,
            Node::Bool(false),
            Node::Bool(true),
            Node::Tuple(Box::default()),
        ],
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        budget_bytes,
        spent_bytes: 0,
    };
    match machine.run() {
        Ok(root) => Ok(Pickle {
            nodes: machine.nodes,
            root,
            spent_bytes: machine.spent_bytes,
        }),
        Err(Stop::Refused(global)) => Err(Error::RefusedGlobal {
            location: location.into(),
            global,
        }),
        Err(Stop::Fault(Fault { what, got })) => Err(Error::Damaged {
            location: format!("{location}, byte {}", machine.input.at),
            what: what.into(),
            expected: "a pickle as Python writes it".into(),
            got,
            help: "the file is incomplete, damaged or not a checkpoint; copy or save it again",
        }),
    }
}

pub(super) struct Machine<'a> {
    input: Input<'a>,
    pub(super) nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack at which marks were set.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    budget_bytes: usize,
    spent_bytes: usize,
}

impl Machine<'_> {
    fn run(&mut self) -> Step<Id> {
        loop {
            let code = self.input.u8()?;
            if code == op::STOP {
                return self.pop();
            }
            self.step(code)?;
        }
    }

    fn step(&mut self, code: u8) -> Step {
        match code {
            op::PROTO => match self.input.u8()? {
                0..=5 => Ok(()),
                other => Err(Fault::new(
                    "the pickle has an unknown protocol",
                    format!("protocol {other}"),
                )
                .into()),
            },
            // Frames only help to read ahead.
            op::FRAME => Ok(self.input.take(8).map(|_| ())?),
            op::MARK => {
                self.charge(2 * size_of::<usize>())?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP => {
                // As in CPython, it removes a mark if one is on top.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    return Ok(());
                }
                self.pop().map(|_| ())
            }
            op::POP_MARK => self.pop_mark().map(|_| ()),
            op::DUP => {
                let top = self.top()?;
                self.push_id(top)
            }
            op::GET | op::BINGET | op::LONG_BINGET => {
                let index = self.memo_index(code)?;
                match self.memo.get(&index) {
                    Some(&id) => self.push_id(id),
                    None => Err(Fault::new(
                        "the pickle uses a value that it never set",
                        format!("memo {index}"),
                    )
                    .into()),
                }
            }
            op::PUT | op::BINPUT | op::LONG_BINPUT => {
                let index = self.memo_index(code)?;
                self.memoize(index)
            }
            op::MEMOIZE => {
                let index = u32::try_from(self.memo.len())
                    .map_err(|_| Fault::new("too many values", "2^32"))?;
                self.memoize(index)
            }
            op::NONE => self.push_id(Id::NONE),
            op::NEWTRUE => self.push_id(Id::TRUE),
            op::NEWFALSE => self.push_id(Id::FALSE),
            op::EMPTY_TUPLE => self.push_id(Id::EMPTY_TUPLE),
            op::INT | op::BININT | op::BININT1 | op::BININT2 | op::LONG | op::LONG1 | op::LONG4 => {
                self.integer(code)
            }
            op::FLOAT => {
                let line = self.input.text_line()?;
                let value = line
                    .parse()
                    .map_err(|_| Fault::new("a number cannot be read", shown(line)))?;
                self.push(Node::Float(value))
            }
            op::BINFLOAT => {
                let value = f64::from_be_bytes(self.input.array()?);
                self.push(Node::Float(value))
            }
            op::STRING | op::UNICODE => self.text_line(code),
            op::BINUNICODE
            | op::SHORT_BINUNICODE
            | op::BINUNICODE8
            | op::BINSTRING
            | op::SHORT_BINSTRING => self.string(code),
            op::BINBYTES | op::SHORT_BINBYTES | op::BINBYTES8 | op::BYTEARRAY8 => {
                let bytes = match code {
                    op::SHORT_BINBYTES => self.input.sized_1()?,
                    op::BINBYTES => self.input.sized_4()?,
                    _ => self.input.sized_8()?,
                };
                self.push_bytes(bytes)
            }
            op::EMPTY_LIST => self.push(Node::List(Vec::new())),
            op::EMPTY_DICT => self.push(Node::Dict(Vec::new())),
            op::EMPTY_SET => self.push(Node::Set(Vec::new())),
            op::TUPLE1 => self.tuple_of(1),
            op::TUPLE2 => self.tuple_of(2),
            op::TUPLE3 => self.tuple_of(3),
            op::TUPLE | op::LIST | op::FROZENSET | op::DICT => {
                let ids = self.pop_mark()?;
                self.charge(ids.len() * ID_BYTES)?;
                let node = match code {
                    op::TUPLE => Node::Tuple(ids.into()),
                    op::LIST => Node::List(ids),
                    op::FROZENSET => Node::Set(ids),
                    _ => Node::Dict(pairs(&ids)?),
                };
                self.push(node)
            }
            op::APPEND => {
                let value = self.pop()?;
                self.extend(vec![value])
            }
            op::APPENDS | op::ADDITEMS => {
                let values = self.pop_mark()?;
                self.extend(values)
            }
            op::SETITEM => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(vec![(key, value)])
            }
            op::SETITEMS => {
                let entries = pairs(&self.pop_mark()?)?;
                self.insert(entries)
            }
            op::PERSID => {
                let key: Box<str> = self.input.text_line()?.into();
                self.charge(key.len())?;
                self.push(Node::Str(key))?;
                self.persistent()
            }
            op::BINPERSID => self.persistent(),
            op::GLOBAL => {
                let module = self.input.text_line()?;
                let name = self.input.text_line()?;
                self.global(module, name)
            }
            op::STACK_GLOBAL => self.stack_global(),
            op::REDUCE | op::NEWOBJ => {
                let args = self.pop()?;
                let class = self.pop()?;
                self.call(class, args)
            }
            op::NEWOBJ_EX => {
                let _named = self.pop()?;
                let args = self.pop()?;
                let class = self.pop()?;
                self.call(class, args)
            }
            op::INST => {
                let module = self.input.text_line()?;
                let name = self.input.text_line()?;
                let args = self.pop_mark()?;
                self.global(module, name)?;
                let class = self.pop()?;
                self.call_with(class, args)
            }
            op::OBJ => {
                let mut args = self.pop_mark()?;
                if args.is_empty() {
                    return Err(
                        Fault::new("an object has no class", "nothing after the mark").into(),
                    );
                }
                let class = args.remove(0);
                self.call_with(class, args)
            }
            op::BUILD => self.build(),
            other => Err(Fault::new(
                "the pickle has an instruction that checkpoints do not use",
                format!("{other:#04x}"),
            )
            .into()),
        }
    }

    fn memo_index(&mut self, code: u8) -> Step<u32> {
        Ok(match code {
            op::BINGET | op::BINPUT => self.input.u8()?.into(),
            op::LONG_BINGET | op::LONG_BINPUT => self.input.u32()?,
            _ => {
                let line = self.input.text_line()?;
                line.parse()
                    .map_err(|_| Fault::new("a memo index cannot be read", shown(line)))?
            }
        })
    }

    fn memoize(&mut self, index: u32) -> Step {
        let top = self.top()?;
        self.charge(MEMO_BYTES)?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn integer(&mut self, code: u8) -> Step {
        let node = match code {
            op::BININT1 => Node::Int(self.input.u8()?.into()),
            op::BININT2 => Node::Int(self.input.u16()?.into()),
            op::BININT => Node::Int(i32::from_le_bytes(self.input.array()?).into()),
            op::LONG1 => long(self.input.sized_1()?),
            op::LONG4 => long(self.input.sized_4()?),
            _ => {
                let line = self.input.text_line()?;
                match (code, line) {
                    // Protocol 0 writes booleans in this way.
                    (op::INT, "00") => return self.push_id(Id::FALSE),
                    (op::INT, "01") => return self.push_id(Id::TRUE),
                    _ => decimal(line.strip_suffix('L').unwrap_or(line))?,
                }
            }
        };
        self.push(node)
    }

    fn text_line(&mut self, code: u8) -> Step {
        if code == op::UNICODE {
            let string = raw_unicode(self.input.line()?);
            return self.push_str(&string);
        }
        let line = self.input.text_line()?;
        // Escapes are not decoded: strings of Python 2 in checkpoints are names, which have none.
        let quoted =
            unquote(line).ok_or_else(|| Fault::new("a string has no quotes", shown(line)))?;
        self.push_str(quoted)
    }

    fn string(&mut self, code: u8) -> Step {
        let bytes = match code {
            op::SHORT_BINUNICODE | op::SHORT_BINSTRING => self.input.sized_1()?,
            op::BINUNICODE | op::BINSTRING => self.input.sized_4()?,
            _ => self.input.sized_8()?,
        };
        match (code, text(bytes)) {
            (_, Ok(string)) => self.push_str(string),
            // Python 2's strings are bytes.
            (op::BINSTRING | op::SHORT_BINSTRING, Err(_)) => self.push_bytes(bytes),
            (_, Err(fault)) => Err(fault.into()),
        }
    }

    fn push_str(&mut self, string: &str) -> Step {
        self.charge(string.len())?;
        self.push(Node::Str(string.into()))
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> Step {
        self.charge(bytes.len())?;
        self.push(Node::Bytes(bytes.into()))
    }

    fn tuple_of(&mut self, count: usize) -> Step {
        let start = self
            .stack
            .len()
            .checked_sub(count)
            .filter(|&start| start >= self.floor())
            .ok_or_else(empty)?;
        let ids = self.stack.split_off(start);
        self.charge(ids.len() * ID_BYTES)?;
        self.push(Node::Tuple(ids.into()))
    }

    /// Adds values to the list, set or object on top of the stack.
    fn extend(&mut self, values: Vec<Id>) -> Step {
        self.charge(values.len() * ID_BYTES)?;
        let target = self.content(|| Node::List(Vec::new()))?;
        match self.nodes.get_mut(target.0 as usize) {
            Some(Node::List(ids) | Node::Set(ids)) => {
                ids.extend(values);
                Ok(())
            }
            _ => {
                Err(Fault::new("values are added to something else than a list", "no list").into())
            }
        }
    }

    /// Adds entries to the dict or object on top of the stack.
    fn insert(&mut self, added: Vec<(Id, Id)>) -> Step {
        self.charge(2 * added.len() * ID_BYTES)?;
        let target = self.content(|| Node::Dict(Vec::new()))?;
        match self.nodes.get_mut(target.0 as usize) {
            Some(Node::Dict(entries)) => {
                entries.extend(added);
                Ok(())
            }
            _ => {
                Err(Fault::new("entries are added to something else than a dict", "no dict").into())
            }
        }
    }

    /// The value that receives additions: the top of the stack, or the content of the object there.
    fn content(&mut self, fresh: impl Fn() -> Node) -> Step<Id> {
        let top = self.top()?;
        match self.nodes.get(top.0 as usize) {
            Some(Node::Object {
                content: Id::NONE, ..
            }) => {
                let added = self.add(fresh())?;
                if let Some(Node::Object { content, .. }) = self.nodes.get_mut(top.0 as usize) {
                    *content = added;
                }
                Ok(added)
            }
            Some(Node::Object { content, .. }) => Ok(*content),
            _ => Ok(top),
        }
    }

    fn persistent(&mut self) -> Step {
        let key = self.pop()?;
        self.push(Node::Persistent(key))
    }

    fn stack_global(&mut self) -> Step {
        let name = self.pop()?;
        let module = self.pop()?;
        match (self.take_str(module), self.take_str(name)) {
            (Some(module), Some(name)) => self.global(&module, &name),
            _ => Err(Fault::new("a class has no name", "something else than two strings").into()),
        }
    }

    fn take_str(&self, id: Id) -> Option<Box<str>> {
        match self.nodes.get(id.0 as usize) {
            // Classes named in the pickle's lines have no limit, but real names are short.
            Some(Node::Str(string)) if string.len() <= 1024 => Some(string.clone()),
            _ => None,
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Step {
        if !globals::is_allowed(module, name) {
            return Err(Stop::Refused(format!("{module}.{name}")));
        }
        let full = format!("{module}.{name}");
        self.charge(full.len())?;
        self.push(Node::Global(full.into()))
    }

    /// The stack height below which values cannot be popped, because there is a mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn top(&self) -> Step<Id> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => Err(empty().into()),
        }
    }

    pub(super) fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => Err(Fault::new("the pickle has no mark where it needs one", "none").into()),
        }
    }

    pub(super) fn push_id(&mut self, id: Id) -> Step {
        self.charge(ID_BYTES)?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn push(&mut self, node: Node) -> Step {
        let id = self.add(node)?;
        self.push_id(id)
    }

    pub(super) fn add(&mut self, node: Node) -> Step<Id> {
        self.charge(NODE_BYTES)?;
        let id = u32::try_from(self.nodes.len())
            .map_err(|_| Fault::new("the pickle has too many values", "2^32"))?;
        self.nodes.push(node);
        Ok(Id(id))
    }

    pub(super) fn charge(&mut self, bytes: usize) -> Step {
        self.spent_bytes = self.spent_bytes.saturating_add(bytes);
        if self.spent_bytes > self.budget_bytes {
            return Err(Fault::new(
                "the pickle takes more memory than its file justifies",
                format!("more than {} bytes", self.budget_bytes),
            )
            .into());
        }
        Ok(())
    }
}

fn empty() -> Fault {
    Fault::new(
        "the pickle takes a value that it never gave",
        "an empty stack",
    )
}

fn pairs(ids: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = ids.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Fault::new(
            "a dict has a key without a value",
            format!("{} values", ids.len()),
        )
        .into());
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}
