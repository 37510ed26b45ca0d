//! Every kernel as machine code for Ampere and Hopper, compiled by NVRTC without a GPU: no spills, registers within
//! what the launches count on, tensor-core instructions where they must be.
//!
//! Skipped with a printed line where NVRTC is absent; demanded where `HEADROOM_REQUIRE_NVRTC` is set
//! (`tests/fetch_nvrtc` fetches it).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;

use gpu_runtime::RuntimeError;
use gpu_runtime::cuda::nvrtc::{Compiler, SOURCES, kernel_names};
use gpu_runtime::cuda::probe::{Search, open_compiler};

/// Low twelve bits of an instruction, of compute capability 8.0 to 9.0 (read off `nvdisasm -hex`).
const HMMA: u16 = 0x23c;
const HGMMA: u16 = 0x9f0;
const LDGSTS: u16 = 0xfae;

fn compiler(cache: Option<std::path::PathBuf>) -> Option<Compiler> {
    match open_compiler(&Search::from_environment()) {
        Ok((path, library)) => Some(Compiler::new(&path, library, cache).unwrap()),
        Err(absence) => {
            assert!(std::env::var_os("HEADROOM_REQUIRE_NVRTC").is_none(), "{absence}");
            println!("skipped: {absence}");
            None
        }
    }
}

/// What the assembler says of one kernel.
#[derive(Debug, Default)]
struct Usage {
    registers: u32,
    spilled_bytes: u32,
    stack_bytes: u32,
}

/// Reads the log of `--ptxas-options=-v`.
fn usages(log: &str) -> BTreeMap<String, Usage> {
    let mut found: BTreeMap<String, Usage> = BTreeMap::new();
    let mut kernel = String::new();
    let number_before = |line: &str, what: &str| -> u32 {
        let before = line.split(what).next().unwrap().trim_end();
        before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            rest.split('\'').next().unwrap().clone_into(&mut kernel);
        } else if line.contains("bytes stack frame") {
            let usage = found.entry(kernel.clone()).or_default();
            usage.stack_bytes = number_before(line, " bytes stack frame");
            usage.spilled_bytes =
                number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
        } else if line.contains(" registers") {
            found.entry(kernel.clone()).or_default().registers = number_before(line, " registers");
        }
    }
    found
}

/// Instructions of each kernel by their low twelve bits, from the `.text.KERNEL` sections of a 64-bit ELF file.
fn instructions(cubin: &[u8]) -> BTreeMap<String, BTreeMap<u16, usize>> {
    let u64_at = |at: usize| u64::from_le_bytes(cubin[at..at + 8].try_into().unwrap()) as usize;
    let u32_at = |at: usize| u32::from_le_bytes(cubin[at..at + 4].try_into().unwrap()) as usize;
    let u16_at = |at: usize| u16::from_le_bytes(cubin[at..at + 2].try_into().unwrap()) as usize;
    assert_eq!(&cubin[..5], b"\x7fELF\x02");
    let (table, size, count, names) = (u64_at(0x28), u16_at(0x3a), u16_at(0x3c), u16_at(0x3e));
    let names_at = u64_at(table + names * size + 0x18);
    let mut found = BTreeMap::new();
    for section in (0..count).map(|index| table + index * size) {
        let name = &cubin[names_at + u32_at(section)..];
        let name = std::str::from_utf8(&name[..name.iter().position(|&b| b == 0).unwrap()]).unwrap();
        if let Some(kernel) = name.strip_prefix(".text.") {
            let (at, bytes) = (u64_at(section + 0x18), u64_at(section + 0x20));
            let mut counts = BTreeMap::new();
            for instruction in cubin[at..at + bytes].chunks_exact(16) {
                let code = u16::from_le_bytes([instruction[0], instruction[1]]) & 0xfff;
                *counts.entry(code).or_insert(0) += 1;
            }
            found.insert(kernel.to_owned(), counts);
        }
    }
    found
}

#[test]
fn kernels_compile_without_spills_and_use_tensor_cores() {
    let Some(compiler) = compiler(None) else { return };
    println!("NVRTC {:?}", compiler.version());
    for architecture in ["sm_80", "sm_90", "sm_90a"] {
        for (name, source) in SOURCES {
            let compiled = compiler.module(name, source, architecture).unwrap();
            let (usages, code) = (usages(&compiled.log), instructions(&compiled.cubin));
            let own = architecture == "sm_90a";
            let expected =
                kernel_names(source).into_iter().filter(|name| own || !name.starts_with("hopper_"));
            let expected: Vec<String> = expected.collect();
            assert_eq!(code.len(), expected.len(), "{architecture} {name}: {:?}", code.keys());
            for kernel in expected {
                let usage = &usages[&kernel];
                let what = format!("{kernel} for {architecture}: {usage:?}");
                assert_eq!((usage.spilled_bytes, usage.stack_bytes), (0, 0), "{what}");
                check_registers(&kernel, usage.registers, &what);
                check_instructions(&kernel, &code[&kernel], &what);
            }
            println!("{architecture} {name}: {} kernels", code.len());
        }
    }
}

/// A multiprocessor has 65,536 registers; the tile model counts on so many blocks at once.
fn check_registers(kernel: &str, registers: u32, what: &str) {
    let limit = match kernel {
        // Two blocks of 256 threads.
        name if name.ends_with("_128x128") || name.ends_with("_128x160") => 128,
        // Three blocks of 128 threads.
        name if name.ends_with("_64x64") || name == "conv_any" || name == "linear_any" => 168,
        name if name.starts_with("attention_") || name.starts_with("across_") => 255,
        // Two blocks of 256 threads.
        name if name.starts_with("group_norm_gradient_") => 128,
        // Three blocks of 128 threads, which their shared memory allows.
        name if name.starts_with("matrix_") => 168,
        _ => 64,
    };
    assert!(registers > 0 && registers <= limit, "{what}, at most {limit}");
}

fn check_instructions(kernel: &str, counts: &BTreeMap<u16, usize>, what: &str) {
    let count = |code: u16| counts.get(&code).copied().unwrap_or(0);
    let attention = kernel.starts_with("attention_") || kernel.starts_with("across_");
    let linear = kernel.starts_with("linear_") && kernel != "linear_few_rows";
    let matrix = kernel.starts_with("matrix_");
    let product = attention || linear || matrix || kernel.starts_with("conv_");
    let hopper = kernel.starts_with("hopper_");
    // Attention and gradients of matrices whose rows are not aligned copy by hand.
    let copies = (product || hopper) && !((attention || matrix) && kernel.ends_with("_any"));
    assert_eq!(count(HMMA) > 0, product, "mma.sync in {what}");
    assert_eq!(count(HGMMA) > 0, hopper, "wgmma in {what}");
    assert_eq!(count(LDGSTS) > 0, copies, "cp.async in {what}");
}

#[test]
fn wrong_source_is_refused_with_the_compilers_message() {
    let Some(compiler) = compiler(None) else { return };
    match compiler.module("wrong.cu", "KERNEL(wrong, int, 32, 1) { undeclared(a); }", "sm_90a") {
        Err(RuntimeError::Unavailable { what, why }) => {
            assert!(what.contains("wrong.cu") && why.contains("undeclared"), "{what}: {why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn second_compilation_comes_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let Some(compiler) = compiler(Some(folder.path().to_owned())) else { return };
    let (name, source) = SOURCES[3];
    let first = compiler.module(name, source, "sm_90a").unwrap();
    let second = compiler.module(name, source, "sm_90a").unwrap();
    assert_eq!((first.cached, second.cached), (false, true));
    assert_eq!(first.cubin, second.cubin);
    assert!(!compiler.module(name, source, "sm_80").unwrap().cached, "another architecture is another entry");
}
