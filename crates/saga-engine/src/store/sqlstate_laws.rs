//! The table of SQLSTATEs, held against the whole list of the Postgres manual (appendix A).

use super::sqlstate::{fails_again, outdates_connections};

/// Every SQLSTATE of the manual, by class.
const ALL: &[(&str, &str)] = &[
    ("00", "00000"),
    ("01", "01000 01003 01004 01006 01007 01008 0100C 01P01"),
    ("02", "02000 02001"),
    ("03", "03000"),
    ("08", "08000 08001 08003 08004 08006 08007 08P01"),
    ("09", "09000"),
    ("0A", "0A000"),
    ("0B", "0B000"),
    ("0F", "0F000 0F001"),
    ("0L", "0L000 0LP01"),
    ("0P", "0P000"),
    ("0Z", "0Z000 0Z002"),
    ("10", "10608"),
    ("20", "20000"),
    ("21", "21000"),
    (
        "22",
        "22000 22001 22002 22003 22004 22005 22007 22008 22009 2200B 2200C 2200D 2200F 2200G 2200H 2200L \
         2200M 2200N 2200S 2200T 22010 22011 22012 22013 22014 22015 22016 22018 22019 2201B 2201E 2201F \
         2201G 2201W 2201X 22021 22022 22023 22024 22025 22026 22027 2202E 2202G 2202H 22030 22031 22032 \
         22033 22034 22035 22036 22037 22038 22039 2203A 2203B 2203C 2203D 2203E 2203F 2203G 22P01 22P02 \
         22P03 22P04 22P05 22P06",
    ),
    ("23", "23000 23001 23502 23503 23505 23514 23P01"),
    ("24", "24000"),
    ("25", "25000 25001 25002 25003 25004 25005 25006 25007 25008 25P01 25P02 25P03 25P04"),
    ("26", "26000"),
    ("27", "27000"),
    ("28", "28000 28P01"),
    ("2B", "2B000 2BP01"),
    ("2D", "2D000"),
    ("2F", "2F000 2F002 2F003 2F004 2F005"),
    ("34", "34000"),
    ("38", "38000 38001 38002 38003 38004"),
    ("39", "39000 39001 39004 39P01 39P02 39P03"),
    ("3B", "3B000 3B001"),
    ("3D", "3D000"),
    ("3F", "3F000"),
    ("40", "40000 40001 40002 40003 40P01"),
    (
        "42",
        "42000 42501 42601 42602 42611 42622 42701 42702 42703 42704 42710 42712 42723 42725 42803 42804 \
         42809 42830 42846 42883 428C9 42939 42P01 42P02 42P03 42P04 42P05 42P06 42P07 42P08 42P09 42P10 \
         42P11 42P12 42P13 42P14 42P15 42P16 42P17 42P18 42P19 42P20 42P21 42P22",
    ),
    ("44", "44000"),
    ("53", "53000 53100 53200 53300 53400"),
    ("54", "54000 54001 54011 54023"),
    ("55", "55000 55006 55P02 55P03 55P04"),
    ("57", "57000 57014 57P01 57P02 57P03 57P04 57P05"),
    ("58", "58000 58030 58P01 58P02"),
    ("72", "72000"),
    ("F0", "F0000 F0001"),
    (
        "HV",
        "HV000 HV001 HV002 HV004 HV005 HV006 HV007 HV008 HV009 HV00A HV00B HV00C HV00D HV00J HV00K HV00L \
         HV00M HV00N HV00P HV00Q HV00R HV010 HV014 HV021 HV024 HV090 HV091",
    ),
    ("P0", "P0000 P0001 P0002 P0003 P0004"),
    ("XX", "XX000 XX001 XX002"),
];

/// Class by class: whether it fails again, with the codes that differ from their class.
const DECIDED: &[(&str, bool, &str)] = &[
    ("08", false, ""),
    ("0A", false, ""),
    ("21", false, ""),
    ("22", true, ""),
    ("23", true, ""),
    ("25", false, ""),
    ("26", false, ""),
    ("28", false, ""),
    ("3D", false, ""),
    ("40", false, ""),
    ("42", true, "42501 42703 42704 42804 42883 42P01 42P05 42P10"),
    ("53", false, ""),
    ("54", false, ""),
    ("55", false, ""),
    ("57", false, ""),
    ("58", false, ""),
    ("XX", false, ""),
];

#[test]
fn every_sqlstate_of_the_manual_is_decided() {
    let mut count = 0;
    for (class, codes) in ALL {
        let decided = DECIDED.iter().find(|(decided, ..)| decided == class);
        let (fails, except) = decided.map_or((false, ""), |(_, fails, except)| (*fails, *except));
        for code in codes.split_whitespace() {
            let excepted = except.split(' ').any(|other| other == code);
            assert_eq!(fails_again(code), fails != excepted, "{code}");
            count += 1;
        }
        assert!(except.split_whitespace().all(|code| codes.contains(code)), "{class}");
    }
    assert_eq!(count, 262);
}

#[test]
fn errors_that_pass_are_named_one_by_one() {
    let pass = [
        "08000 08001 08003 08004 08006 08007 08P01",
        "0A000 25000 25001 25002 25003 25004 25005 25006 25007 25008 25P01 25P02 25P03 25P04",
        "40000 40001 40002 40003 40P01 53000 53100 53200 53300 53400 54000 54001 54011 54023",
        "55000 55006 55P02 55P03 55P04 57000 57014 57P01 57P02 57P03 57P04 57P05",
        "58000 58030 58P01 58P02 XX000 XX001 XX002",
        "28000 28P01 3D000 26000",
    ];
    for code in pass.iter().flat_map(|codes| codes.split(' ')) {
        assert!(!fails_again(code), "{code}");
    }
    // What no manual knows says nothing about the work either.
    for unknown in ["", "2", "99999", "P0001", "YY123"] {
        assert!(!fails_again(unknown), "{unknown}");
    }
}

#[test]
fn connections_to_a_wrong_server_are_replaced() {
    for code in ["25006", "57P01", "57P02", "57P03", "57P04", "0A000", "26000", "08006"] {
        assert!(outdates_connections(code) && !fails_again(code), "{code}");
    }
    for code in ["57014", "55P03", "40001", "53300", "23505", "25P03", "25P02"] {
        assert!(!outdates_connections(code), "{code}");
    }
}
