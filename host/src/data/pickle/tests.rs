//! Pickles as Python wrote them, byte by byte, and hostile ones.

use super::*;

/// `{'a': [1, 2.5, -3], 'b': ('x', None, True), 'c': b'\xff'}` in protocols 0, 2 and 4.
const PLAIN: [&[u8]; 3] = [
    b"(dp0\nVa\np1\n(lp2\nI1\naF2.5\naI-3\nasVb\np3\n(Vx\np4\nNI01\ntp5\nsVc\np6\nc_codecs\nencode\np7\n(V\xff\np8\nVlatin1\np9\ntp10\nRp11\ns.",
    b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01G@\x04\x00\x00\x00\x00\x00\x00J\xfd\xff\xff\xffeX\x01\x00\x00\x00bq\x03X\x01\x00\x00\x00xq\x04N\x88\x87q\x05X\x01\x00\x00\x00cq\x06c_codecs\nencode\nq\x07X\x02\x00\x00\x00\xc3\xbfq\x08X\x06\x00\x00\x00latin1q\t\x86q\nRq\x0bu.",
    b"\x80\x04\x95(\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01G@\x04\x00\x00\x00\x00\x00\x00J\xfd\xff\xff\xffe\x8c\x01b\x94\x8c\x01x\x94N\x88\x87\x94\x8c\x01c\x94C\x01\xff\x94u.",
];

fn numbers(pickle: &Pickle, key: &str) -> Result<Vec<f64>, PickleFault> {
    pickle.top().get(key)?.numbers(&mut Budget::new())
}

#[test]
fn plain_data_of_all_protocols_is_read() {
    for bytes in PLAIN {
        let pickle = Pickle::read(bytes).unwrap();
        assert_eq!(numbers(&pickle, "a").unwrap(), [1.0, 2.5, -3.0]);
        let b = pickle.top().get("b").unwrap().items().unwrap();
        assert_eq!(b[0].text().unwrap(), "x");
        assert_eq!(*b[1].value, Value::None);
        assert_eq!(*b[2].value, Value::Bool(true));
        let c = pickle.top().get("c").unwrap();
        assert_eq!(*c.value, Value::Bytes(vec![0xff]));
        let said = pickle.top().get("d").err().unwrap().to_string();
        assert!(said.contains("key `d`"), "{said}");
        let said = c.items().err().unwrap().to_string();
        assert!(said.contains("no list as `c` of the outermost"), "{said}");
    }
}

/// Python 2's `numpy.array([1, -2], dtype='<i4')` and a scalar, protocol 2.
const ARRAYS: &[u8] = b"\x80\x02}q\x00(U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02\x85q\x08cnumpy\ndtype\nq\tU\x02i4q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x08\x01\x00\x00\x00\xfe\xff\xff\xffq\x0ftq\x10bU\x01sq\x11]q\x12cnumpy.core.multiarray\nscalar\nq\x13h\x0cU\x04\x07\x00\x00\x00q\x14\x86q\x15Rq\x16au.";

#[test]
fn arrays_and_scalars_of_numpy_are_read() {
    let pickle = Pickle::read(ARRAYS).unwrap();
    assert_eq!(numbers(&pickle, "a").unwrap(), [1.0, -2.0]);
    assert_eq!(numbers(&pickle, "s").unwrap(), [7.0]);
    let type_of = |text| NumberType::of(text).unwrap();
    assert_eq!(type_of(">i2").numbers(&[0xff, 0xfe]).unwrap(), [-2.0]);
    assert_eq!(
        type_of("f8").numbers(&1.5_f64.to_le_bytes()).unwrap(),
        [1.5]
    );
    assert_eq!(type_of("<u2").numbers(&[0, 1, 2]), None);
    assert_eq!(NumberType::of("O8"), None);
    assert_eq!(NumberType::of("i0"), None);
}

#[test]
fn nothing_is_ever_called() {
    let cases: [(&[u8], &str); 6] = [
        (b"cos\nsystem\n(S'true'\ntR.", "names `os.system`"),
        (
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
            "names `posix.system`",
        ),
        (b"(S'true'\nios\nsystem\n.", "opcode INST at byte 9"),
        (b"\x80\x02]]\x81.", "opcode NEWOBJ"),
        (b"\x80\x05N.", "protocols up to 4"),
        (b"S'x'\n)R.", "something else than a name is called"),
    ];
    for (bytes, expected) in cases {
        let said = Pickle::read(bytes).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn every_truncation_and_every_flipped_byte_ends_without_panic() {
    for whole in PLAIN.into_iter().chain([ARRAYS]) {
        for end in 0..whole.len() {
            assert!(Pickle::read(&whole[..end]).is_err(), "{end} bytes");
        }
        for at in 0..whole.len() {
            for byte in [
                0, b'(', b'.', b'a', b'0', b'1', b'2', b'R', b'b', b't', 0x94, 0xff,
            ] {
                let mut damaged = whole.to_vec();
                damaged[at] = byte;
                if let Ok(pickle) = Pickle::read(&damaged) {
                    let _ = numbers(&pickle, "a");
                }
            }
        }
    }
}

#[test]
fn a_list_within_itself_and_a_repeated_list_cost_nothing() {
    let circular = Pickle::read(b"]q\x00h\x00a.").unwrap();
    assert_eq!(circular.top().items().unwrap().len(), 1);
    assert!(circular.top().texts().is_err());
    let mut budget = Budget(3);
    let short = Pickle::read(b"](K\x01K\x02e.").unwrap();
    assert!(short.top().numbers(&mut budget).is_ok());
    assert!(short.top().numbers(&mut budget).is_err());
}
