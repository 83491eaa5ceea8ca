"""What the help of each command ends with: lines to copy."""

EXAMPLES = {
    "generate": (
        "ric generate --prompt 'red apple' --preference colorfulness=0.7 compressibility=0.3",
        "ric generate --prompt 'red apple' --targets colorfulness=1.5 --count 4 --out out/",
        "ric generate --prompt crown --targets colorfulness=1 --seed 1 --refine 3",
        "ric generate --like out/0001-red-apple-seed0.png --seed 1",
        "ric generate --prompts prompts.txt --count 4 --width 96 --height 64",
        "ric generate --prompt 'red apple' --init-image photo.jpg --strength 0.6",
    ),
    "sweep": (
        "ric sweep --model emoji-64 --prompt 'red apple' --points 11 --out sweep/",
        "ric sweep --prompt 'red apple' --along colorfulness --out sweep/",
    ),
    "score": (
        "ric score photos/ --scorers compressibility:resize=none colorfulness --json",
        "ric score photos/ --scorers greyness.py:Greyness",
    ),
    "scorers": ("ric scorers", "ric scorers compressibility aesthetic"),
    "models": ("ric models",),
    "serve": (
        "ric serve --model emoji-64 --port 8080",
        "ric serve --model base/ --adapter runs/mine/adapter runs/other/adapter --host 0.0.0.0",
    ),
    "serve-scorer": (
        "ric serve-scorer aesthetic --port 8000",
        "ric serve-scorer aesthetic clip_score --host 0.0.0.0 --root /mnt/pictures",
    ),
    "label": (
        "ric label photos/ --scorers compressibility colorfulness --out labelled/",
        "ric label photos/ --scorers aesthetic --out labelled/ --shard 0/4",
        "ric label 's3://bucket/laion/{00000..00099}.tar' --scorers aesthetic --out labelled/",
        "ric label photos/ --scorers aesthetic --out labelled/ --engine ray --workers 4",
    ),
    "sample-prompts": (
        "ric sample-prompts --model emoji-64 --prompts prompts.txt --count 8 --out drawn/",
        "ric sample-prompts --prompts prompts.txt --out drawn/ --shard 0/4",
    ),
    "init": ("ric init sd15 > my.yaml", "ric init emoji-64 > my.yaml"),
    "train": (
        "ric train my.yaml --out runs/mine",
        "ric train my.yaml --resume --push-to-hub user/name",
    ),
    "online": ("ric online online.yaml --out runs/online",),
    "evaluate": (
        "ric evaluate --adapter runs/mine/adapter none --prompts prompts.txt --out report/",
        "ric evaluate --prompts prompts.txt --calibrate --out calibrated/",
    ),
    "app": ("ric app --model emoji-64 --port 7860",),
    "export": ("ric export --adapter runs/mine/adapter --format kohya --out mine.safetensors",),
    "prompt": (
        "ric prompt --adapter runs/words/adapter --prompt 'red apple' --targets colorfulness=1.5",
    ),
    "push": ("ric push --adapter runs/mine/adapter --to user/name",),
    "adopt": (
        "ric adopt --model tuned/ --rewards aesthetic --grammar words --labelled labelled/ "
        "--out adapter/",
        "ric adopt --model stable-diffusion-v1-5/stable-diffusion-v1-5 --denoiser tuned/unet "
        "--rewards aesthetic compressibility --grammar upstream --statistics statistics.json "
        "--out tuned/model",
    ),
    "completion": (
        "ric completion bash > ~/.local/share/bash-completion/completions/ric",
        "ric completion zsh > ~/.zfunc/_ric",
        "ric completion fish > ~/.config/fish/completions/ric.fish",
    ),
}
