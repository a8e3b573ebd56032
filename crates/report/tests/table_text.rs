//! Tables and numbers for terminals.

use tokenformer_report::table::{Table, human_bytes, human_count, human_duration};

#[test]
fn columns_are_aligned_and_rows_may_be_short_or_long() {
    let mut table = Table::new(["site", "tokens", "params"]);
    table.row(["größe", "1"]);
    table.row(["ffn", "1024", "2.75M", "surplus"]);
    assert_eq!(
        table.to_string(),
        "site   tokens  params\n-----  ------  ------\ngröße       1\nffn      1024   2.75M\n"
    );
}

#[test]
fn counts_have_three_digits_and_round_up_into_the_next_unit() {
    let cases = [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (20_249, "20.2k"),
        (99_949, "99.9k"),
        (99_950, "100k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (2_751_488, "2.75M"),
        (1_000_000_000, "1B"),
        (u64::MAX, "18.4E"),
    ];
    for (count, text) in cases {
        assert_eq!(human_count(count), text, "{count}");
    }
}

#[test]
fn bytes_use_binary_units() {
    let cases = [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1_048_575, "1 MiB"),
        (5 << 30, "5 GiB"),
    ];
    for (bytes, text) in cases {
        assert_eq!(human_bytes(bytes), text, "{bytes}");
    }
}

#[test]
fn durations_show_two_units() {
    let cases = [
        (0.0, "0ms"),
        (0.0421, "42ms"),
        (0.9996, "1.0s"),
        (9.96, "10s"),
        (59.6, "1m 0s"),
        (3599.7, "1h 0m"),
        (7_980.0, "2h 13m"),
        (273_600.0, "3d 4h"),
        (-1.0, "-"),
        (f64::NAN, "-"),
        (f64::INFINITY, "-"),
    ];
    for (seconds, text) in cases {
        assert_eq!(human_duration(seconds), text, "{seconds}");
    }
}
