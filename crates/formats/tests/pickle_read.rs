//! Values, objects and refusals of the pickle reader.

mod common;

use common::{fixture, text};
use proptest::prelude::*;
use tokenformer_formats::Error;
use tokenformer_formats::pickle::Pickle;

const BUDGET_BYTES: usize = 16 << 20;

fn read(bytes: &[u8]) -> Result<Pickle, Error> {
    Pickle::read("test.pkl", bytes, BUDGET_BYTES)
}

fn refused(bytes: &[u8]) -> String {
    match read(bytes) {
        Err(Error::RefusedGlobal { global, .. }) => global,
        Err(other) => panic!("{other}"),
        Ok(pickle) => panic!("read as {}", pickle.root().describe()),
    }
}

#[test]
fn every_protocol_gives_the_same_values() {
    for protocol in 0..=5 {
        let bytes = std::fs::read(fixture(&format!("protocol_{protocol}.pkl"))).unwrap();
        let pickle = read(&bytes).unwrap();
        let root = pickle.root();
        assert_eq!(
            root.get("step").unwrap().as_i64(),
            Some(3),
            "protocol {protocol}"
        );
        assert_eq!(root.get("name").unwrap().as_str(), Some("é"));
        assert_eq!(root.get("wide").unwrap().as_i64(), Some(1 << 40));
        assert_eq!(
            root.get("bytes").unwrap().as_bytes(),
            Some(b"\x00\xff".as_slice())
        );
        let list: Vec<_> = root.get("list").unwrap().elements().unwrap().collect();
        assert_eq!(list[0].as_f64(), Some(1.5));
        assert!(list[1].is_none());
        assert_eq!(list[2].as_bool(), Some(true));
        assert_eq!(list[3].as_i64(), Some(-7));
        assert_eq!(list[4].as_i64(), None, "2**70 does not fit");
        let set: Vec<_> = root
            .get("set")
            .unwrap()
            .elements()
            .unwrap()
            .map(|v| v.as_i64())
            .collect();
        assert_eq!(set, [Some(4)]);
    }
}

#[test]
fn nothing_runs_whatever_the_instruction() {
    let system = b"posix\nsystem\n";
    let attacks: [Vec<u8>; 8] = [
        // GLOBAL and REDUCE.
        [b"c".as_slice(), system, b"(S'touch hacked'\ntR."].concat(),
        // INST.
        [b"(S'touch hacked'\ni".as_slice(), system, b"."].concat(),
        // OBJ.
        [b"(c".as_slice(), system, b"S'touch hacked'\no."].concat(),
        // STACK_GLOBAL.
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch hacked\x85R.".to_vec(),
        // NEWOBJ and BUILD.
        [b"\x80\x02c".as_slice(), system, b")\x81}b."].concat(),
        // NEWOBJ_EX.
        [b"\x80\x04c".as_slice(), system, b")}\x92."].concat(),
        // Only named.
        [b"c".as_slice(), system, b"0N."].concat(),
        // As a defaultdict's factory.
        [b"ccollections\ndefaultdict\n(c".as_slice(), system, b"tR."].concat(),
    ];
    for attack in attacks {
        assert_eq!(refused(&attack), "posix.system");
    }
}

#[test]
fn dangerous_names_are_refused_and_named() {
    for (module, name) in [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("__builtin__", "__import__"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch", "hub.load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.jit", "load"),
        ("numpy", "load"),
        ("numpy.testing._private.utils", "runstring"),
        ("runpy", "run_path"),
        ("__main__", "Model"),
        ("deepspeedx", "Anything"),
    ] {
        let global = refused(format!("c{module}\n{name}\n)R.").as_bytes());
        assert_eq!(global, format!("{module}.{name}"));
    }
    let message = read(b"cos\nsystem\n)R.").err().unwrap().to_string();
    assert!(message.starts_with(
        "test.pkl: the pickle asks for \"os.system\", which is refused; it has not been run\n"
    ));
    assert!(message.contains("help:"), "{message}");
}

#[test]
fn classes_of_training_code_stay_opaque() {
    let pickle = read(b"\x80\x02cdeepspeed.runtime.fp16.loss_scaler\nLossScaler\n)\x81}X\x05\x00\x00\x00scaleG\x40\x50\x00\x00\x00\x00\x00\x00sb.").unwrap();
    let object = pickle.root().as_object().unwrap();
    assert_eq!(
        object.class,
        "deepspeed.runtime.fp16.loss_scaler.LossScaler"
    );
    assert_eq!(object.state.get("scale").unwrap().as_f64(), Some(64.0));
    assert_eq!(object.args.elements().unwrap().len(), 0);
    let pickle = read(b"\x80\x02cpytorch_lightning.utilities.parsing\nAttributeDict\n)\x81}X\x05\0\0\0widthK\x08sb.").unwrap();
    let object = pickle.root().as_object().unwrap();
    assert_eq!(object.state.get("width").unwrap().as_i64(), Some(8));
}

#[test]
fn ordered_dicts_keep_their_order_and_lose_their_attributes() {
    let pickle = read(b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00bK\x01X\x01\x00\x00\x00aK\x02u}X\x09\x00\x00\x00_metadataNsb.").unwrap();
    let keys: Vec<_> = pickle
        .root()
        .entries()
        .unwrap()
        .map(|(key, value)| (key.as_str(), value.as_i64()))
        .collect();
    assert_eq!(keys, [(Some("b"), Some(1)), (Some("a"), Some(2))]);
    // Python 2 writes the entries as an argument.
    let pickle = read(b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'x'\naI5\naatR.").unwrap();
    assert_eq!(pickle.root().get("x").unwrap().as_i64(), Some(5));
}

#[test]
fn a_list_that_contains_itself_is_read() {
    let pickle = read(b"\x80\x02]q\x00h\x00a.").unwrap();
    let inner = pickle
        .root()
        .element(0)
        .unwrap()
        .element(0)
        .unwrap()
        .element(0)
        .unwrap();
    assert_eq!(inner.elements().unwrap().len(), 1);
}

#[test]
fn memory_is_bounded_by_the_budget() {
    // Each of these makes a value with every byte or two, or keeps one alive in many places.
    let programs: [&[u8]; 6] = [b"]", b"(", b"N", b"\x8c\x00", b"]2a", b"K\x00\x94"];
    for program in programs {
        let mut bytes = program.repeat(1 << 16);
        bytes.push(b'.');
        let budget_bytes = 1 << 15;
        let (result, most) =
            tokenformer_testing::held(|| Pickle::read("test.pkl", &bytes, budget_bytes).err());
        let message = result.unwrap().to_string();
        assert!(
            message.contains("more memory than its file justifies"),
            "{message}"
        );
        assert!(most <= 2 * budget_bytes, "{program:?} held {most} bytes");
    }
}

#[test]
fn announced_lengths_allocate_nothing() {
    for bytes in [
        b"X\xff\xff\xff\xffabc".as_slice(),
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc",
        b"\x8b\xff\xff\xff\x7fabc",
        b"\x96\x00\x00\x00\x00\x00\x00\x00\x80abc",
    ] {
        let (result, most) = tokenformer_testing::held(|| read(bytes).err());
        assert!(result.unwrap().to_string().contains("cut short"));
        assert!(most < 4096, "{most} bytes");
    }
}

#[test]
fn wrong_programs_are_errors() {
    for (bytes, part) in [
        (b"".as_slice(), "cut short"),
        (b".", "never gave"),
        (b"0.", "never gave"),
        (b"(.", "never gave"),
        (b"N(0b.", "never gave"),
        (b"e.", "no mark"),
        (b"Na.", "never gave"),
        (b"NNa.", "something else than a list"),
        (b"}(Nu.", "key without a value"),
        (b"g7\n.", "never set"),
        (b"h\x07.", "never set"),
        (b"gx\n.", "memo index"),
        (b"\x80\x06N.", "unknown protocol"),
        (b"NNR.", "function or class"),
        (b"ctorch\nSize\nNR.", "not a tuple"),
        (b"\x82\x01.", "instruction"),
        (b"\x97.", "instruction"),
        (b"I1x\n.", "integer"),
        (b"Fabc\n.", "number"),
        (b"Sabc\n.", "quotes"),
        (b"X\x01\x00\x00\x00\xff.", "UTF-8"),
        (b"NN\x93.", "no name"),
        (b"(o.", "no class"),
        (b"c_codecs\nencode\n(V\\u1234\ntR.", "wide character"),
    ] {
        let message = read(bytes)
            .err()
            .unwrap_or_else(|| panic!("{bytes:?} was read"))
            .to_string();
        assert!(message.contains(part), "{bytes:?}: {message}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["protocol_0.pkl", "protocol_2.pkl", "protocol_5.pkl"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{name} at {length}");
        }
    }
}

proptest! {
    #[test]
    fn mutations_never_panic(
        protocol in 0usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = std::fs::read(fixture(&format!("protocol_{protocol}.pkl"))).unwrap();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read(&bytes);
    }

    #[test]
    fn random_programs_never_panic(
        program in prop::collection::vec(
            prop::sample::select(b"(.012FIJKLMNPQRSTUVXabcd}eghijl]opqrst)uGBC\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x00\x01\x02\n'1".to_vec()),
            0..200,
        ),
    ) {
        let (_, most) = tokenformer_testing::held(|| Pickle::read("test.pkl", &program, 1 << 16).is_ok());
        prop_assert!(most < 1 << 18);
    }
}

#[test]
fn strings_longer_than_a_name_are_no_name() {
    let long = text(&"a".repeat(2000));
    let bytes = [b"\x80\x04".as_slice(), &long, &long, b"\x93."].concat();
    assert!(read(&bytes).err().unwrap().to_string().contains("no name"));
}

#[global_allocator]
static ALLOCATOR: tokenformer_testing::Watching = tokenformer_testing::Watching;
