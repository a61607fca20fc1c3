//! Pickles written by hand, opcode by opcode: what is read, what is refused, and that nothing multiplies.

use super::*;

fn problem(bytes: &[u8]) -> String {
    match run(bytes) {
        Ok(_) => panic!("{:?} was accepted", bytes.escape_ascii().to_string()),
        Err(problem) => problem.to_string(),
    }
}

fn root(bytes: &[u8]) -> Value {
    match run(bytes) {
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
        (b"\x80\x02ctorch\nComplexFloatStorage\n.", "torch.ComplexFloatStorage"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2x\n.", "torch._utils._rebuild_tensor_v2x"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.", "numpy.core.multiarray._reconstruct"),
    ] {
        let message = problem(pickle);
        assert!(message.contains(name), "{name} not named in: {message}");
        assert!(message.contains("nothing was executed"), "{message}");
    }
}

#[test]
fn numbers_of_every_spelling_are_read() {
    let int = |bytes: &[u8]| match root(bytes) {
        Value::Int(value) => value,
        other => panic!("{other:?}"),
    };
    assert_eq!(int(b"K\xff."), 255);
    assert_eq!(int(b"M\x01\x02."), 513);
    assert_eq!(int(b"J\xfe\xff\xff\xff."), -2);
    assert_eq!(int(b"\x8a\x00."), 0);
    assert_eq!(int(b"\x8a\x01\xff."), -1);
    assert_eq!(int(b"\x8a\x02\xff\x00."), 255);
    assert_eq!(int(b"\x8b\x02\x00\x00\x00\x00\x80."), -32768);
    assert!(matches!(root(b"G\x3f\xf8\0\0\0\0\0\0."), Value::Float(1.5)));
}

#[test]
fn numpy_scalars_are_read() {
    let scalar = |code: &str, raw: &[u8]| {
        // numpy before version 2 says core; one letter decides here which of the spellings is tried.
        let module: &[u8] = if code.starts_with('f') { b"_core" } else { b"core" };
        let mut pickle = [b"\x80\x04cnumpy.", module, b".multiarray\nscalar\n"].concat();
        pickle.extend(b"cnumpy\ndtype\n");
        pickle.extend([0x8c, code.len() as u8]);
        pickle.extend(code.as_bytes());
        pickle.extend(b"\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb");
        pickle.extend([b'C', raw.len() as u8]);
        pickle.extend(raw);
        pickle.extend(b"\x86R.");
        root(&pickle)
    };
    assert!(matches!(scalar("f8", &0.0025f64.to_le_bytes()), Value::Float(v) if v == 0.0025));
    assert!(matches!(scalar("f4", &1.5f32.to_le_bytes()), Value::Float(1.5)));
    assert!(matches!(scalar("f2", &[0, 0x3c]), Value::Float(1.0)));
    assert!(matches!(scalar("i8", &(-7i64).to_le_bytes()), Value::Int(-7)));
    assert!(matches!(scalar("i2", &(-7i16).to_le_bytes()), Value::Int(-7)));
    assert!(matches!(scalar("u1", &[200]), Value::Int(200)));
    assert!(matches!(scalar("b1", &[1]), Value::Bool(true)));
}

#[test]
fn a_big_endian_numpy_scalar_is_refused() {
    let message = problem(b"cnumpy\ndtype\nX\x02\0\0\0f8\x85R(K\x03X\x01\0\0\0>tb.");
    assert!(message.contains("little-endian"), "{message}");
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
        (b"NQ.", "persistent id"),
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
    let pickle = run(&bomb).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(pickle.nodes.len(), 1001);
}

#[test]
fn a_tuple_applied_again_and_again_is_refused() {
    // One tuple of 1000 items as arguments of 1000 calls: a million copies out of a few kilobytes.
    let mut bomb = b"(".to_vec();
    bomb.extend(vec![b'N'; 1000]);
    bomb.extend(b"tq\0ctorch\ndevice\nq\x01");
    bomb.extend(b"h\x01h\0R0".repeat(1000));
    bomb.extend(b"N.");
    assert!(problem(&bomb).contains("copies more than"));
}
