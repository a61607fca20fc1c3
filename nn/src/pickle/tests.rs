//! Pickles written by hand, opcode by opcode: what is read, what is refused, and that nothing multiplies.

use super::*;

fn problem(bytes: &[u8]) -> String {
    match load(bytes) {
        Ok(_) => panic!("{:?} was accepted", bytes.escape_ascii().to_string()),
        Err(problem) => problem.to_string(),
    }
}

fn root(bytes: &[u8]) -> Value<'_> {
    match load(bytes) {
        Ok(pickle) => pickle.root,
        Err(problem) => panic!("{problem}"),
    }
}

#[test]
fn dangerous_globals_are_refused_by_name() {
    // cos\nsystem\n(S'echo' ... the classic exploit, and its relatives.
    for (pickle, name) in [
        (&b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R."[..], "posix.system"),
        (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x02ctorch.serialization\nload\n.", "torch.serialization.load"),
        (b"\x80\x02ctorch._utils\n_import_dotted_name\n.", "torch._utils._import_dotted_name"),
        (b"\x80\x02cnumpy\nload\n.", "numpy.load"),
        (b"\x80\x02c__builtin__\ngetattr\n.", "__builtin__.getattr"),
    ] {
        let message = problem(pickle);
        assert!(message.contains(name), "{name} not named in: {message}");
        assert!(message.contains("nothing was executed"), "{message}");
    }
}

#[test]
fn what_is_listed_is_named_and_not_called() {
    let called = b"\x80\x02cbuiltins\nset\n](K\x01K\x02e\x85R.";
    let pickle = load(called).unwrap();
    let (global, arguments, object) = pickle.object(&pickle.root).unwrap();
    assert_eq!(global, Global { module: "builtins", name: "set" });
    assert_eq!(pickle.sequence(&arguments[0]).unwrap(), [Value::Int(1), Value::Int(2)]);
    assert!(object.state.is_none() && object.items.is_empty());
    assert_eq!(pickle.kind(&pickle.root), "an object of set");
}

#[test]
fn numbers_of_every_spelling_are_read() {
    let int = |bytes: &[u8]| {
        let pickle = load(bytes).unwrap();
        pickle.int(&pickle.root).unwrap()
    };
    assert_eq!(int(b"K\xff."), 255);
    assert_eq!(int(b"M\x01\x02."), 513);
    assert_eq!(int(b"J\xfe\xff\xff\xff."), -2);
    assert_eq!(int(b"\x8a\x00."), 0);
    assert_eq!(int(b"\x8a\x01\xff."), -1);
    assert_eq!(int(b"\x8a\x02\xff\x00."), 255);
    assert_eq!(int(b"\x8b\x02\x00\x00\x00\x00\x80."), -32768);
    assert_eq!(int(b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f."), i128::from(i64::MAX));
    assert_eq!(int(b"\x8a\x09\0\0\0\0\0\0\0\x80\0."), 1 << 63);
    assert_eq!(int(b"L-5L\n."), -5);
    assert_eq!(int(b"I300\n."), 300);
    assert_eq!(int(b"L119547037146038801333356L\n."), 119547037146038801333356);
    assert_eq!(root(b"I01\n."), Value::Bool(true));
    assert_eq!(root(b"I00\n."), Value::Bool(false));
    assert_eq!(root(b"G\x3f\xf8\0\0\0\0\0\0."), Value::Float(1.5));
}

#[test]
fn texts_bytes_and_dicts_of_every_spelling_are_read() {
    let text = |bytes: &[u8]| {
        let pickle = load(bytes).unwrap();
        pickle.text(&pickle.root).unwrap().to_owned()
    };
    for spelling in
        [&b"U\x02ab."[..], b"T\x02\0\0\0ab.", b"X\x02\0\0\0ab.", b"\x8c\x02ab.", b"\x8d\x02\0\0\0\0\0\0\0ab."]
    {
        assert_eq!(text(spelling), "ab");
    }
    let bytes = |bytes: &[u8], longest| {
        let pickle = load(bytes).unwrap();
        pickle.bytes(&pickle.root, longest).map(|bytes| bytes.into_owned())
    };
    for spelling in [
        &b"C\x02a\xe9."[..],
        b"B\x02\0\0\0a\xe9.",
        b"\x8e\x02\0\0\0\0\0\0\0a\xe9.",
        b"\x96\x02\0\0\0\0\0\0\0a\xe9.",
        b"c_codecs\nencode\nX\x03\0\0\0a\xc3\xa9X\x06\0\0\0latin1\x86R.",
    ] {
        assert_eq!(bytes(spelling, 2).unwrap(), b"a\xe9");
        assert!(bytes(spelling, 1).is_none());
    }
    assert!(bytes(b"c_codecs\nencode\nX\x03\0\0\0a\xc3\xa9X\x05\0\0\0utf-8\x86R.", 9).is_none());
    for spelling in [
        &b"}U\x01aK\x05s."[..],
        b"}(U\x01aK\x04U\x01aK\x05u.",
        b"ccollections\nOrderedDict\n)R(U\x01aK\x05u.",
        b"ccollections\nOrderedDict\n]](U\x01aK\x05ea\x85R.",
        b"ccollections\ndefaultdict\nc__builtin__\nint\n\x85RU\x01aK\x05s.",
    ] {
        let pickle = load(spelling).unwrap();
        assert_eq!(pickle.get(&pickle.root, "a"), Some(Value::Int(5)), "{}", spelling.escape_ascii());
        assert_eq!(pickle.get(&pickle.root, "b"), None);
        assert_eq!(pickle.kind(&pickle.root), "a dict");
    }
}

#[test]
fn damage_is_named_with_its_place() {
    for (pickle, part) in [
        (&b""[..], "cut short"),
        (b"\x80\x02", "cut short"),
        (b"\x80\x09.", "protocol 9"),
        (b".", "empty stack"),
        (b"N(0.", "empty stack"),
        (b"Nt.", "a mark never set"),
        (b"X\xff\xff\xff\xffab.", "4294967295 bytes are announced"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", "are announced"),
        (b"h\x05.", "memo 5"),
        (b"NNa.", "not a container"),
        (b"}Na.", "not a list"),
        (b"]NNs.", "not a dict"),
        (b"}(Nu.", "without a value"),
        (b"Q.", "empty stack"),
        (b"N)R.", "not a function"),
        (b"ccollections\nOrderedDict\nNR.", "tuple"),
        (b"i__main__\nX\n.", "opcode 0x69"),
        (b"\x8b\xff\xff\xff\xff.", "are announced"),
    ] {
        let message = problem(pickle);
        assert!(message.contains(part), "{part:?} not in: {message}");
        assert!(message.contains("at its byte"), "{message}");
    }
}

#[test]
fn depth_and_cycles_cost_nothing() {
    // A million lists within each other: a recursive reader, or a recursive drop, would overflow.
    let mut deep = vec![b']'; 1_000_000];
    deep.extend(vec![b'a'; 999_999]);
    deep.push(b'.');
    assert!(matches!(root(&deep), Value::Node(_)));
    // A list that contains itself.
    assert!(matches!(root(b"]q\0h\0a."), Value::Node(_)));
}

#[test]
fn a_memo_bomb_stays_small() {
    // Each list holds the one before ten times: 10^1000 elements if it were ever unfolded.
    let mut bomb = b"]q\0".to_vec();
    for _ in 0..1000 {
        bomb.extend(b"0](");
        bomb.extend(b"h\0".repeat(10));
        bomb.extend(b"eq\0");
    }
    bomb.push(b'.');
    let pickle = load(&bomb).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(pickle.nodes.len(), 1001);
}
