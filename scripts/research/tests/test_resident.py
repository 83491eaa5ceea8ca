"""The trainer that keeps everything on the device: the same captions as the tokenizer's."""

import pytest
import torch

from placement import GRAMMAR, draw_placement, placed
from resident import TENTHS, WORDS, ResidentTrainer, padded
from ric_diffusion.conditioning.grammar import Grammar, fit_prompt
from ric_diffusion.models.protocol import Batch
from scratch import encoded, padded_ids
from support.model import POOLED, SCHEDULER, TEXT, UNET, autoencoder

LABELS = ("colorfulness", "compressibility", "aesthetic", "brightness")
CAPTIONS = [["red apple", "apple", "fruit, healthy food"], ["octopus"], ["man's shoe"], ["crab"]]
CONTEXT = 40


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images():
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=seeded())


@pytest.fixture(scope="module")
def trainer():
    torch.manual_seed(0)
    return ResidentTrainer(
        autoencoder(block_out_channels=(4, 4, 4, 8), sample_size=32).eval(),
        images(),
        CAPTIONS,
        LABELS,
        numbers_fraction=0.25,
        variants=3,
        seed=0,
        text_encoder=TEXT | {"max_position_embeddings": CONTEXT},
        unet=UNET | POOLED | {"sample_size": 4, "block_out_channels": (32, 32)},
        scheduler=SCHEDULER,
    )


def words_of(trainer, placements):
    return torch.stack([trainer._words(placement) for placement in placements]).unbind(1)


def test_lists_of_numbers_are_padded():
    rows, lengths = padded([[1, 2, 3], [], [4]])
    assert rows.tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]] and lengths.tolist() == [3, 0, 1]
    assert padded([[], []])[0].shape == (2, 1)


def test_placed_pictures_are_encoded_once(trainer):
    assert trainer.placed_latents.shape == (4, 3, 4, 4, 4)
    picture = placed(images()[1:2], [trainer.placements[1][2]])
    one = encoded(trainer.vae, picture)[0] * trainer.vae.config.scaling_factor
    assert torch.allclose(trainer.placed_latents[1, 2], one, atol=1e-5)


def test_captions_with_numbers_are_tokenized_as_the_tokenizer_does(trainer):
    generator = seeded()
    texts = list(dict.fromkeys(["", *(text for each in CAPTIONS for text in each)]))
    placements = [{}, *(draw_placement(generator) for _ in range(200))]
    which = torch.randint(len(texts), (len(placements),), generator=generator)
    ids, _ = trainer.tokens.lines(which, *words_of(trainer, placements))
    wanted = [
        fit_prompt(texts[i], GRAMMAR.reward_words(placement), trainer.tokenizer)
        for i, placement in zip(which.tolist(), placements, strict=True)
    ]
    assert torch.equal(ids, padded_ids(trainer.tokenizer, wanted))


def test_a_caption_is_cut_and_its_numbers_never(trainer):
    tokens, number = trainer.tokens, {"size": -1.5, "up": 0.3, "turn": 2.0}
    long = torch.zeros(1, 60, dtype=torch.long) + 7
    tokens = type(tokens)(
        **{**vars(tokens), "captions": long, "caption_lengths": torch.tensor([60])}
    )
    words = trainer.tokenizer(GRAMMAR.reward_words(number), add_special_tokens=False).input_ids
    ids, ends = tokens.lines(torch.zeros(1, dtype=torch.long), *words_of(trainer, [number]))
    room = CONTEXT - 2 - len(words)
    assert ids[0].tolist() == [tokens.begin, *[7] * room, *words, tokens.end]
    assert ends[0, -1] == CONTEXT - 2


def test_drawn_numbers_are_where_they_are_read(trainer):
    captions = torch.randint(len(trainer.tokens.captions), (200,), generator=seeded())
    ids, where, aims = trainer.draw_words(captions, seeded(1))
    assert where.shape == aims.shape == (200, len(LABELS))
    grammar, seen = Grammar.words(LABELS), set()
    for row in range(200):
        said = [i for i in range(len(LABELS)) if where[row, i]]
        assert 1 <= len(said) <= WORDS and not aims[row][where[row] == 0].any()
        seen.add(len(said))
        for label in said:
            value = float(aims[row, label])
            words = trainer.tokenizer(
                grammar.reward_words({LABELS[label]: value}), add_special_tokens=False
            ).input_ids
            end = int(where[row, label]) + 1
            assert ids[row, end - len(words) : end].tolist() == words
    assert seen == {1, 2, 3}
    assert aims.abs().max() <= TENTHS / 10 and len(aims.unique()) > 40


def test_what_is_drawn_of_a_picture(trainer):
    rows = torch.zeros(4000, dtype=torch.long)
    captions, words, latents = trainer.draw(rows, seeded())
    part = captions.bincount(minlength=4) / 4000
    assert part[0] == pytest.approx(0.1, abs=0.03)  # no caption
    assert part[1] == pytest.approx(0.9 * (0.6 + 0.4 / 3), abs=0.04)  # the name
    assert part[2:4].tolist() == pytest.approx([0.9 * 0.4 / 3] * 2, abs=0.03)
    moved = words[:, 0, 0] != trainer.tokens.none
    assert moved.float().mean() == pytest.approx(0.25, abs=0.03)
    for drawn in words[moved][:50].unique(dim=0):
        (variant,) = (trainer.words[0] == drawn).all((1, 2)).nonzero().flatten().tolist()
        own = (words == drawn).all((1, 2))
        assert (latents[own] == trainer.placed_latents[0, variant]).all()
    plain = latents[~moved].unique(dim=0)
    assert len(plain) == 2  # the picture and its mirror image
    assert torch.equal(plain, trainer.latents[0].unique(dim=0))


def test_the_batch_alone_decides_the_loss_and_everything_learns(trainer):
    losses = []
    for seed, of in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(seed)
        losses.append(trainer.loss(Batch(indices=(0, 1, 2, 3), generator=seeded(of))))
    assert losses[0] == losses[1] != losses[2]
    losses[0].backward()
    parts = {
        name.partition(".")[0]
        for name, p in trainer.named_parameters().items()
        if p.grad is not None
    }
    assert parts == {"unet", "text_encoder", "reader"}


def test_it_learns(trainer):
    def loss(seed):
        return trainer.loss(Batch(indices=(0, 1, 2, 3) * 2, generator=seeded(seed)))

    with torch.no_grad():
        before = sum(float(loss(seed)) for seed in range(100, 104))
    optimizer = torch.optim.AdamW(trainer.named_parameters().values(), lr=3e-3)
    for step in range(25):
        loss(step).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert sum(float(loss(seed)) for seed in range(100, 104)) < 0.85 * before
