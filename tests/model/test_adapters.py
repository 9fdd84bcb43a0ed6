"""Models that others have wrapped: PEFT's adapters and accelerate's hooks."""

import pytest
import torch

import families
from palimpsest.errors import ModelError
from palimpsest.model import Site, examine, load, pad

# PEFT asks transformers for a property that transformers 5 deprecates, and fixes a setting of GPT-2's itself
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`"),
]


def adapted(name):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    return peft.get_peft_model(families.build(name), config).eval()


@pytest.mark.parametrize("name", families.SAMPLE)
def test_a_model_with_an_adapter(name, tokenizer):
    wrapped, family = adapted(name), families.FAMILIES[name]
    model = load(wrapped, tokenizer=tokenizer)
    assert model.net is wrapped.get_base_model()
    assert examine(model).healthy, examine(model).verdict
    for layer in model.anatomy.layers:
        assert layer.down.path == f"{family.down_of(layer.index)}.base_layer"
        assert not type(layer.down.module).__module__.startswith("peft")
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(model.run(pad(ids.tolist())), wrapped(ids).logits)
    plain = load(families.build(name), tokenizer=tokenizer)
    assert not torch.allclose(plain.run(pad(ids.tolist())), model.run(pad(ids.tolist())), atol=1e-3)


def test_the_mlp_holds_the_adapter_and_down_does_not(tokenizer):
    model = load(adapted("llama"), tokenizer=tokenizer)
    states = model.record(pad([[5, 6, 7]]), [Site("value", 1), Site("mlp_out", 1)])
    assert not torch.allclose(states[Site("value", 1)], states[Site("mlp_out", 1)], atol=1e-3)


def test_an_adapter_of_virtual_tokens_is_refused(tokenizer):
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ModelError, match="virtual tokens"):
        load(peft.get_peft_model(families.build("llama"), config), tokenizer=tokenizer)


@pytest.mark.floor
@pytest.mark.parametrize("name", families.SAMPLE)
def test_a_model_with_hooks_of_accelerate(name, tokenizer):
    """accelerate replaces `forward` on every module, which a partial run must put back."""
    accelerate = pytest.importorskip("accelerate")
    net = accelerate.dispatch_model(families.build(name), {"": "cpu"}, main_device="cpu", force_hooks=True)
    patched = [module.__dict__.get("forward") for module in net.modules()]
    assert any(patched)
    model = load(net, tokenizer=tokenizer)
    assert examine(model).healthy, examine(model).verdict
    assert [module.__dict__.get("forward") for module in net.modules()] == patched
