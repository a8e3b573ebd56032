//! `metrics.csv`.

mod common;

use common::{eval, every_kind, of_images, train};
use tokenformer_report::metrics_csv;

#[test]
fn rows_are_train_and_eval_records_under_one_header() {
    let csv = metrics_csv(&every_kind());
    let rows: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert_eq!(
        rows[0],
        "kind,step,tokens,stage,params,loss,bits_per_byte,perplexity,eval_tokens,grad_norm,lr,step_ms,tokens_per_s,skipped"
    );
    let kinds: Vec<&str> = rows[1..].iter().map(|row| &row[..4]).collect();
    assert_eq!(kinds, ["eval", "trai", "trai", "eval"]);
    let columns = rows[0].split(',').count();
    assert!(rows.iter().all(|row| row.split(',').count() == columns));
}

#[test]
fn values_stand_in_their_columns() {
    let csv = metrics_csv(&[train(3, 2.5), eval(3, 1, 0.0)]);
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(
        rows[1],
        "train,3,192,0,12800,2.5,3.6067376022224087,,,0.5,0.001,20.0,3200.0,false"
    );
    assert_eq!(rows[2], "eval,3,192,1,12800,0.0,,1.0,1024,,,,,");
}

#[test]
fn non_finite_values_are_empty_fields() {
    let csv = metrics_csv(&[train(1, f64::NAN)]);
    assert_eq!(
        csv.lines().nth(1).unwrap(),
        "train,1,64,0,12800,,,,,0.5,0.001,20.0,3200.0,false"
    );
}

#[test]
fn runs_on_pictures_have_columns_of_their_own() {
    let csv = metrics_csv(&of_images());
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(
        rows[0],
        "kind,step,images,stage,params,loss,eval_images,grad_norm,lr,step_ms,skipped,images_per_s,waiting,top1,top5,\
         ema_loss,ema_top1,ema_top5"
    );
    assert_eq!(
        rows[2],
        "train,1,64,0,12800,2.0,,0.5,0.001,20.0,false,1500.0,0.25,,,,,"
    );
    assert_eq!(
        rows[4],
        "eval,2,128,0,12800,1.5,1024,,,,,,,0.5,0.875,1.25,0.625,0.9375"
    );
}
