#!/usr/bin/env python3
"""Full-size models beside PyTorch on one machine: made here, same weights, same inputs; prints lines of JSON.

Needs torch, safetensors and diffusers; transformers for the text encoder. Weights are random, seeded, and scaled so
that activations keep near unit variance. Errors are ‖got - f32‖ / ‖f32‖ against PyTorch in f32 without TF32.
"""
import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import zlib

import torch
from safetensors.torch import load_file, save_file

RUNS = 60  # timed runs of each; the median counts
# Floors in ms: sum over matrix operations of the larger of FLOPs at 790 TFLOP/s and bytes at 3.0 TB/s (H100).
FLOOR_MS = {"step": 1.29, "motion": 24.6, "decode": 3.26}
ERROR_FACTOR = 1.25


def emit(**values):
    print(json.dumps(values), flush=True)


def config(arguments, path):
    with open(os.path.join(arguments.configurations, path, "config.json"), encoding="utf-8") as file:
        return json.load(file)


def fill(model, tag):
    """Seeded by each parameter's name, on the CPU, so that every machine gets the same weights."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            generator = torch.Generator().manual_seed(zlib.crc32(f"{tag}/{name}".encode()))
            values = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                values *= 0.1
            elif parameter.ndim == 1:
                values = 1.0 + 0.1 * values
            elif "embedding" in name and parameter.ndim == 2 and "time" not in name:
                values *= 0.5
            else:
                values /= math.sqrt(parameter[0].numel())
            parameter.copy_(values.to(torch.bfloat16))
    return model.eval()


def make_models(arguments):
    from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel

    folder = os.path.join(arguments.work, "model")
    shutil.rmtree(folder, ignore_errors=True)
    base = "lcm_dreamshaper_v7"
    parts = [
        ("unet", UNet2DConditionModel, f"{base}/unet"),
        ("vae", AutoencoderKL, f"{base}/vae"),
        ("motion_adapter", MotionAdapter, "animatelcm/motion_adapter"),
    ]
    for name, kind, path in parts:
        model = fill(kind.from_config(config(arguments, path)), name)
        model.to(torch.bfloat16).save_pretrained(os.path.join(folder, name), safe_serialization=True)
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextModel(CLIPTextConfig(**config(arguments, f"{base}/text_encoder")))
    fill(text, "text_encoder").to(torch.bfloat16).save_pretrained(os.path.join(folder, "text_encoder"), safe_serialization=True)
    # As published: keys that a newer library adds are not for us to judge here.
    for name, path in [(name, path) for name, _, path in parts] + [("text_encoder", f"{base}/text_encoder")]:
        shutil.copy(os.path.join(arguments.configurations, path, "config.json"), os.path.join(folder, name, "config.json"))
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(os.path.join(arguments.fixtures, name), os.path.join(folder, name))
    size = sum(os.path.getsize(os.path.join(root, file)) for root, _, files in os.walk(folder) for file in files)
    emit(model=folder, bytes=size)


def sinusoid(t, channels):
    half = channels // 2
    angles = t * torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float64) / half)
    return torch.cat([torch.cos(angles), torch.sin(angles)]).float()


def seeded(name, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def timed(call, device):
    """Median milliseconds by CUDA events, after warming up."""
    if device != "cuda":  # only to try this script itself
        call()
        return math.nan
    for _ in range(8):
        call()
    torch.cuda.synchronize()
    times = []
    for _ in range(RUNS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def relative(got, expected):
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


def ours(arguments, command, inputs, frames):
    """Runs our binary on the same inputs; its line of JSON, and its output, channels last."""
    paths = [os.path.join(arguments.work, f"{command}-{kind}.safetensors") for kind in ("in", "out")]
    save_file({name: value.float().contiguous() for name, value in inputs.items()}, paths[0])
    run = subprocess.run(
        [arguments.binary, command, "--model", os.path.join(arguments.work, "model"), "--frames", str(frames), "--side", str(arguments.side),
         "--runs", str(RUNS), "--inputs", paths[0], "--outputs", paths[1]],
        stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.strip().splitlines()[-1]), load_file(paths[1])["out"]


def channels_last(value):
    """[n, c, h, w] or [1, c, f, h, w] to [frames, h, w, c]."""
    if value.ndim == 5:
        value = value[0].permute(1, 0, 2, 3)
    return value.permute(0, 2, 3, 1).contiguous()


def compare(arguments, what):
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    folder = os.path.join(arguments.work, "model")
    from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel, UNetMotionModel

    frames = arguments.frames if what == "motion" else 1
    side = arguments.side // 8
    if what == "decode":
        latents = seeded("decode/latents", 1, 4, side, side)
        model = AutoencoderKL.from_pretrained(os.path.join(folder, "vae"), torch_dtype=torch.float32)
        named = {"latents": channels_last(latents)}
        positional = (latents,)
        keywords = {}
        call = lambda m, a, k: m.decode(*a, return_dict=False)[0]
    else:
        unet = UNet2DConditionModel.from_pretrained(os.path.join(folder, "unet"), torch_dtype=torch.float32)
        shape = (1, 4, side, side) if what == "step" else (1, 4, frames, side, side)
        tokens = config(arguments, "lcm_dreamshaper_v7/text_encoder")["max_position_embeddings"]
        latents, context = seeded(f"{what}/latents", *shape), seeded("context", 1, tokens, unet.config.cross_attention_dim)
        guidance = seeded("guidance", 1, unet.config.time_cond_proj_dim)
        model = unet
        if what == "motion":
            adapter = MotionAdapter.from_pretrained(os.path.join(folder, "motion_adapter"), torch_dtype=torch.float32)
            model = UNetMotionModel.from_unet2d(unet, adapter)
            repeated = context.repeat_interleave(frames, 0)  # as its pipeline does
        named = {"latents": channels_last(latents), "context": context, "guidance": guidance,
                 "timestep": sinusoid(759, unet.config.block_out_channels[0])}
        positional = (latents, torch.tensor([759]))
        keywords = {"encoder_hidden_states": repeated if what == "motion" else context, "timestep_cond": guidance, "return_dict": False}
        call = lambda m, a, k: m(*a, **k)[0]
    line, got = ours(arguments, "decode" if what == "decode" else "forward", named, frames)

    def placed(value, kind):
        value = value.to(arguments.device)
        return value.to(kind) if value.is_floating_point() else value

    def at(kind):
        return tuple(placed(v, kind) for v in positional), {
            k: placed(v, kind) if torch.is_tensor(v) else v for k, v in keywords.items()}

    with torch.inference_mode():
        model = model.to(arguments.device).eval()
        exact = channels_last(call(model, *at(torch.float32)).float().cpu())
        model = model.to(torch.bfloat16).to(memory_format=torch.channels_last)
        inputs = at(torch.bfloat16)
        rounded = channels_last(call(model, *inputs).float().cpu())
        eager = timed(lambda: call(model, *inputs), arguments.device)
        error, theirs = relative(got, exact), relative(rounded, exact)
        result = dict(compared=what, frames=frames, ours_ms=line["median_ms"], back_to_back_ms=line["back_to_back_ms"],
                      kernels=line["kernels"], memory_bytes=line["memory_bytes"], eager_ms=eager, error=error,
                      torch_bf16_error=theirs, floor_ms=FLOOR_MS[what], torch=torch.__version__)
        emit(**result, compile_ms=None)  # stays, should the compiler run out of time
        if not arguments.no_compile:
            if what == "decode":
                model.decode = torch.compile(model.decode, mode="max-autotune")
            else:
                model = torch.compile(model, mode="max-autotune")
            result["compile_ms"] = timed(lambda: call(model, *inputs), arguments.device)
            emit(**result)
    return error <= ERROR_FACTOR * theirs


def animate(arguments):
    folder = os.path.join(arguments.work, "model")
    for frames, steps in ((arguments.frames, 8), (1, 4)):
        source = folder
        if frames == 1:  # without the adapter: pictures
            source = os.path.join(arguments.work, "picture-model")
            shutil.rmtree(source, ignore_errors=True)
            os.makedirs(source)
            for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
                os.symlink(os.path.join(folder, name), os.path.join(source, name))
        subprocess.run([arguments.binary, "animate", "--model", source, "--frames", str(frames), "--side", str(arguments.side),
                        "--steps", str(steps)], check=True)
    return True


def adapted(net, rank=4):
    """Low-rank products beside every attention matrix, kept in f32 and used in the network's type."""
    net.requires_grad_(False)
    parameters = []
    for name, module in net.named_modules():
        wanted = name.endswith(("to_q", "to_k", "to_v", "to_out.0")) and (".attn1." in name or ".attn2." in name)
        if not (wanted and isinstance(module, torch.nn.Linear)):
            continue
        place = dict(device=module.weight.device, dtype=torch.float32)
        down = (torch.randn(rank, module.in_features, **place) / rank).requires_grad_()
        up = torch.zeros(module.out_features, rank, **place).requires_grad_()
        module.register_forward_hook(lambda m, i, o, d=down, u=up: o + (i[0] @ d.to(o.dtype).T) @ u.to(o.dtype).T)
        parameters += [down, up]
    return parameters


def train(arguments):
    """One sample a step, rank 4, bf16, AdamW in f32: ours beside PyTorch's, without checkpoints in either."""
    folder = os.path.join(arguments.work, "model")
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

    side = arguments.side // 8
    for frames in (1, arguments.frames):
        run = subprocess.run(
            [arguments.binary, "train", "--model", folder, "--frames", str(frames), "--side", str(arguments.side), "--runs", "20"],
            stdout=subprocess.PIPE, text=True, check=True)
        line = json.loads(run.stdout.strip().splitlines()[-1])
        net = UNet2DConditionModel.from_pretrained(os.path.join(folder, "unet"), torch_dtype=torch.bfloat16)
        shape = (1, 4, side, side)
        if frames > 1:
            adapter = MotionAdapter.from_pretrained(os.path.join(folder, "motion_adapter"), torch_dtype=torch.bfloat16)
            net, shape = UNetMotionModel.from_unet2d(net, adapter), (1, 4, frames, side, side)
        net = net.to(arguments.device, torch.bfloat16).to(memory_format=torch.channels_last).eval()
        parameters = adapted(net)
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-2)
        tokens = config(arguments, "lcm_dreamshaper_v7/text_encoder")["max_position_embeddings"]
        place = lambda value: value.to(arguments.device, torch.bfloat16)
        latents, noise = place(seeded("train/latents", *shape)), place(seeded("train/noise", *shape))
        context = place(seeded("context", 1, tokens, net.config.cross_attention_dim))
        context = context.repeat_interleave(frames, 0) if frames > 1 else context
        guidance = place(seeded("guidance", 1, net.config.time_cond_proj_dim))
        timestep = torch.tensor([400], device=arguments.device)

        def step():
            optimizer.zero_grad()
            got = net(latents, timestep, encoder_hidden_states=context, timestep_cond=guidance, return_dict=False)[0]
            torch.nn.functional.mse_loss(got.float(), noise.float()).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

        eager = timed(step, arguments.device)
        memory = torch.cuda.max_memory_allocated() if arguments.device == "cuda" else None
        emit(trained=frames, ours_ms=line["median_ms"], eager_ms=eager, memory_bytes=line["memory_bytes"],
             eager_memory_bytes=memory, torch=torch.__version__)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["models", "step", "motion", "decode", "animate", "train"])
    parser.add_argument("--work", required=True)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--configurations", required=True)
    parser.add_argument("--fixtures", required=True)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--device", default="cuda", help="cpu tries the script without timing anything")
    parser.add_argument("--side", type=int, default=512, help="pixels; goals and floors are those of 512")
    parser.add_argument("--frames", type=int, default=16, help="of a clip; goals and floors are those of 16")
    arguments = parser.parse_args()
    if arguments.what == "models":
        make_models(arguments)
        return 0
    whole = {"animate": animate, "train": train}.get(arguments.what)
    good = whole(arguments) if whole else compare(arguments, arguments.what)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
