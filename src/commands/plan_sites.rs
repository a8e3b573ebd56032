//! `plan sites`: which sites to grow.

use super::{dataset, device_in, find_model, print_json, run_of};
use crate::args::PlanSitesArgs;
use crate::usage;
use tokenformer_core::growth::{Birth, Method};
use tokenformer_report::table::Table;
use tokenformer_store::Which;
use tokenformer_study::planner::{Reading, SitePlan, UNIT, exact_method, plan_sites};
use tokenformer_train::recipe::resolve;
use tokenformer_train::{Result, files, memory};

/// Largest factor of a growth.
const MAX_FACTOR: f64 = 1000.0;
/// Bytes of a new number during the probe: weight and gradient.
const BYTES: f64 = 8.0;

/// Runs the verb.
pub fn run(args: &PlanSitesArgs) -> Result<()> {
    if args.factor > MAX_FACTOR {
        let expected = format!("at most {MAX_FACTOR}");
        return Err(usage(
            "--factor",
            &expected,
            args.factor,
            "2 to 4 are usual",
        ));
    }
    let found = find_model(&args.model, Which::Latest)?;
    let recipe = run_of(&found.dir).map(|run| run.join("config.toml"));
    let Some(recipe) = recipe.filter(|recipe| recipe.exists()) else {
        let help = "name the folder of a run, or a checkpoint in it";
        let got = args.model.display();
        return Err(usage(
            "DIR",
            "a run with its recipe, config.toml",
            got,
            help,
        ));
    };
    let mut resolved = resolve(Some(&recipe), &[])?;
    dataset::locate(&mut resolved, Some(&recipe))?;
    let mut task = tokenformer_train::task::open(&resolved.recipe)?;
    let device = device_in(&args.compute, resolved.recipe.train.precision)?;
    let state = files::read_state(&found.dir)?;
    let model = files::load_for_training(&found.dir, &device, &state)?;
    let more = model.param_count() as f64 * (args.factor - 1.0) * BYTES;
    memory::ensure(&*device, "the probe", more as u64, "try a smaller --factor")?;
    let reading = Reading {
        first_window: state.windows,
        batches: args.batches,
    };
    let birth = Birth {
        stage: state.stage + 1,
        step: state.step,
        seed: state.seed,
    };
    let method = exact_method(&model);
    let sites = plan_sites(model, task.as_mut(), reading, args.factor, birth)?;
    match args.json {
        true => print_json(&sites),
        false => print(&sites, method, args.factor, state.step),
    }
    Ok(())
}

fn print(sites: &[SitePlan], method: Method, factor: f64, step: u64) {
    let mut table = Table::new(["site", "tokens", "gain", "even growth", "planned"]);
    for site in sites {
        table.row([
            site.site.clone(),
            site.tokens.to_string(),
            format!("{:.2}", site.gain),
            format!("+{}", site.even),
            format!("+{}", site.planned),
        ]);
    }
    out!("{table}");
    outln!("\ngain: fall of the loss by a first update over its cost; 1 is the mean of all sites");
    let before: usize = sites.iter().map(|site| site.tokens).sum();
    let even: usize = sites.iter().map(|site| site.even).sum();
    outln!(
        "even growth: {:.3} times the tokens, in whole units of {UNIT} for each site; {factor} times were asked for\n",
        (before + even) as f64 / before as f64
    );
    outln!("[[grow]]\nat_step = {step}\nmethod = \"{method}\"\n\n[grow.sites]");
    for site in sites {
        outln!("\"{}\" = \"+{}\"", site.site, site.planned);
    }
}
