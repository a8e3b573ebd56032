//! Builds the kernels as C++ for the emulator, if the feature `emulator` is on and there is a C++ compiler. Without a
//! compiler the crate still builds, and the emulator says that the compiler is missing.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(emulated_kernels)");
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=emulator");
    #[cfg(feature = "emulator")]
    emulator();
}

#[cfg(feature = "emulator")]
fn emulator() {
    let built = cc::Build::new()
        .cpp(true)
        .std("c++17")
        // The emulator has to be quick in debug builds, too.
        .opt_level(2)
        // As the GPU does with `--fmad=true`, sums may be contracted; but nothing else may be reordered.
        .flag_if_supported("-fno-gnu-unique")
        .flag_if_supported("-fvisibility=hidden")
        .warnings(false)
        .include("emulator")
        .include("kernels")
        .file("emulator/emulated.cpp")
        .try_compile("emulated");
    match built {
        Ok(()) => println!("cargo:rustc-cfg=emulated_kernels"),
        Err(error) => println!("cargo:warning=the CUDA emulator is not built: {error}"),
    }
}
