"""Kinds of damage to config.json and to the small files beside the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.evidence.files.sound_folders import Case

SIZES = {
    "llama": ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
              "num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    "gpt2": ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions"),
    "gpt_neox": ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                 "num_attention_heads", "max_position_embeddings"),
}  # fmt: skip
HOSTILE: tuple[Any, ...] = (
    0, -1, -(2**63), 2**31, 2**40, 10**18, 10**4000, True, False, None, "", "16", "NaN", 1.5, -0.0,
    1e308, 1e-320, float("nan"), float("inf"), [], [1], [[]], {}, {"a": 1}, "\x00", "\ud800",
    "x" * 10_000, "../../etc/passwd",
)  # fmt: skip
ROPES: tuple[Any, ...] = (
    {"rope_type": "yarn", "factor": 2.0}, {"type": "linear"}, {"type": "linear", "factor": 0},
    {"type": "linear", "factor": "2"}, {"rope_type": "llama3", "factor": 8.0}, [1], "linear", 7,
    {"rope_type": None}, {"rope_type": ["linear"]}, {"rope_theta": None}, {"rope_theta": 0},
    {"rope_theta": float("nan")}, {"rope_type": "linear", "factor": float("inf")},
    {"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    {"rope_type": "longrope", "factor": 1.0, "short_factor": [1], "long_factor": [1]},
    {"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "llama3", "factor": 8.0,
     "low_freq_factor": 4.0, "high_freq_factor": 1.0, "original_max_position_embeddings": 16},
)  # fmt: skip


def sizes(case: Case) -> tuple[str, ...]:
    return SIZES.get(case.sound.partition("-")[0], SIZES["llama"])


def _size(value: Any) -> Callable[[Case], None]:
    return lambda case: case.edit(**{case.rng.choice(sizes(case)): value})


def _off_by(step: int) -> Callable[[Case], None]:
    def change(case: Case) -> None:
        field = case.rng.choice([one for one in sizes(case) if "position" not in one])
        case.edit(**{field: case.config()[field] + step})

    return change


def _text(content: str | bytes) -> Callable[[Case], None]:
    return lambda case: case.write("config.json", content)


def _literal(word: str) -> Callable[[Case], None]:
    """A number that JSON has not, or that no float can hold."""

    def change(case: Case) -> None:
        field = case.rng.choice([*sizes(case), "rms_norm_eps", "layer_norm_epsilon"])
        text = json.dumps(case.config() | {field: "@"}).replace('"@"', word)
        case.note.append(field)
        case.write("config.json", text)

    return change


def _random_value(case: Case) -> None:
    case.edit(**{case.rng.choice(sorted(case.config())): case.rng.choice(HOSTILE)})


def _random_pair(case: Case) -> None:
    _random_value(case)
    _random_value(case)


def _without(case: Case) -> None:
    content = case.config()
    field = case.rng.choice(sorted(content))
    del content[field]
    case.note.append(field)
    case.write("config.json", content)


def _cut(case: Case) -> None:
    text = (case.path / "config.json").read_text(encoding="utf-8")
    case.write("config.json", text[: case.rng.randrange(len(text) - 2)])


def _flip(case: Case) -> None:
    content = bytearray((case.path / "config.json").read_bytes())
    content[case.rng.randrange(len(content))] ^= 1 << case.rng.randrange(8)
    case.write("config.json", bytes(content))


def _code(case: Case) -> None:
    case.write("modeling_evil.py", case.payload)
    case.write("configuration_evil.py", case.payload)
    names = {"AutoConfig": "configuration_evil.C", "AutoModelForCausalLM": "modeling_evil.M"}
    case.edit(auto_map=names)


def _custom_generate(case: Case) -> None:
    (case.path / "custom_generate").mkdir()
    case.write("custom_generate/generate.py", case.payload)


def _tokenizer_code(case: Case) -> None:
    case.write("tokenization_evil.py", case.payload)
    names = {"AutoTokenizer": ["tokenization_evil.T", None]}
    case.write("tokenizer_config.json", {"auto_map": names, "tokenizer_class": "Evil"})


def _other_weights(case: Case) -> None:
    (case.path / "other.safetensors").write_bytes(case.weights.read_bytes())
    case.edit(transformers_weights="other.safetensors")


def _tie(case: Case) -> None:
    case.edit(tie_word_embeddings=not case.config().get("tie_word_embeddings", False))


def _rope(case: Case) -> None:
    content = case.config()
    content.pop("rope_parameters", None)
    field = case.rng.choice(("rope_parameters", "rope_scaling"))
    case.write("config.json", content)
    case.edit(**{field: case.rng.choice(ROPES)})


def _two_ropes(case: Case) -> None:
    case.edit(
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        rope_scaling={"type": "linear", "factor": 2.0},
    )


def _edit(**fields: Any) -> Callable[[Case], None]:
    return lambda case: case.edit(**fields)


def _generation(content: object) -> Callable[[Case], None]:
    return lambda case: case.write("generation_config.json", content)


CONFIG: dict[str, Callable[[Case], None]] = {
    "config missing": lambda case: (case.path / "config.json").unlink(),
    "config empty": _text(""),
    "config not JSON": _text("{model_type: llama}"),
    "config a list": _text("[1]"),
    "config a number": _text("7"),
    "config not UTF-8": _text(b"\xff\xfe{}\x00"),
    "config with a byte order mark": _text(b"\xef\xbb\xbf{}"),
    "config deep": _text('{"a":' * 60 + "1" + "}" * 60),
    "config very deep": _text("[" * 400_000),
    "config of objects, very deep": _text('{"a":' * 150_000),
    "config huge": _text(" " * 1_000_001),
    "config of many values": _text("[" + "[]," * 300_000 + "[]]"),
    "config key twice": _text('{"model_type": "llama", "model_type": "gpt2"}'),
    "config nested key twice": _text('{"model_type": "llama", "a": {"b": 1, "b": 2}}'),
    "config number of 5,000 digits": _text('{"vocab_size": ' + "9" * 5000 + "}"),
    "config cut off": _cut,
    "config bit flipped": _flip,
    "config literal NaN": _literal("NaN"),
    "config literal Infinity": _literal("-Infinity"),
    "config literal 1e999": _literal("1e999"),
    "size zero": _size(0),
    "size negative": _size(-3),
    "size 2**40": _size(2**40),
    "size 10**7": _size(10**7),
    "size a bool": _size(True),
    "size a text": _size("16"),
    "size a fraction": _size(16.5),
    "size null": _size(None),
    "size a list": _size([16]),
    "size one more": _off_by(1),
    "size one less": _off_by(-1),
    "size doubled or so": _off_by(48),
    "random value": _random_value,
    "two random values": _random_pair,
    "random field left out": _without,
    "model type unknown": _edit(model_type="mamba9"),
    "model type a list": _edit(model_type=["llama"]),
    "model type null": _edit(model_type=None),
    "model type of a sibling": lambda case: case.edit(
        model_type=case.rng.choice(("llama", "mistral", "qwen2", "qwen3", "gpt_neox", "phi"))
    ),
    "code in auto_map": _code,
    "trust_remote_code": _edit(trust_remote_code=True),
    "code for generation": _custom_generate,
    "code for the tokenizer": _tokenizer_code,
    "kernels from a hub": _edit(_attn_implementation="someone/evil-kernel"),
    "kernels from a hub, public field": _edit(attn_implementation="someone/evil-kernel@v1"),
    "other weights": _other_weights,
    "other weights outside": _edit(transformers_weights="../../x.safetensors"),
    "quantized, method unknown": _edit(quantization_config={"quant_method": "?"}),
    "quantized, nonsense": _edit(quantization_config=[1]),
    "bidirectional": _edit(is_causal=False),
    "layers unlike": _edit(per_layer_config={"1": {"intermediate_size": 8}}),
    "layer types nonsense": _edit(layer_types=["linear_attention"] * 3),
    "layer types too few": _edit(layer_types=["sliding_attention"]),
    "activation unknown": _edit(hidden_act="nonsense", activation_function="nonsense"),
    "activation another": _edit(hidden_act="relu", activation_function="relu"),
    "tie turned round": _tie,
    "rope nonsense": _rope,
    "two ropes": _two_ropes,
    "start token outside": _edit(bos_token_id=10**6),
    "start token negative": _edit(bos_token_id=-1),
    "end token nonsense": _edit(eos_token_id="</s>"),
    "padding token outside": _edit(pad_token_id=10**6),
    "a billion labels": _edit(num_labels=10**9),
    "answers as tuples": _edit(return_dict=False),
    "attentions asked for": _edit(output_attentions=True),
    "dtype unknown": _edit(dtype="float7", torch_dtype="float7"),
    "architectures nonsense": _edit(architectures=[{"a": 1}]),
    "tensor parallel pretraining": _edit(pretraining_tp=4),
    "an encoder too": _edit(is_encoder_decoder=True, add_cross_attention=True),
    "generation config not JSON": _generation("{"),
    "generation config nonsense": _generation({"eos_token_id": "x", "max_new_tokens": -5}),
    "generation config a list": _generation("[]"),
    "generation config huge": _generation(" " * 5_000_000),
}
# Edits that may lawfully mean another model: then transformers must compute the same from them.
LAWFUL = frozenset(
    name for name in CONFIG if name.startswith(("size", "random", "two", "model type", "rope",
                                                "layer", "activation", "config bit", "tie",
                                                "config literal", "dtype", "attentions"))
)  # fmt: skip
