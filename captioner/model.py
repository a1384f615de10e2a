"""The whole network: an encoder, one or two decoders, and the options they were made from."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from captioner.decoder import Decoder
from captioner.encoder import Encoder
from captioner.options import DecoderOptions, EncoderOptions, ImageOptions, to_dict
from captioner.vision import Vision


@dataclass(frozen=True)
class ModelOptions:
    """Everything the shape of a model depends on."""

    image: ImageOptions
    encoder: EncoderOptions
    decoder: DecoderOptions
    vocabulary_size: int
    reverse: bool = False
    """There is a second decoder, which reads and writes captions from their end to their start."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file; the vocabulary's size is that of the vocabulary beside them."""
        groups = {name: to_dict(getattr(self, name)) for name in ("image", "encoder", "decoder")}
        return {**groups, "reverse": self.reverse}


class CaptionModel(nn.Module):
    """images -> features -> logits of words."""

    def __init__(self, options: ModelOptions, *, imagenet: bool = False) -> None:
        """Builds the network; `imagenet` starts the encoder from torchvision's weights, otherwise all is random.

        Raises OptionError where the options do not fit together.
        """
        super().__init__()
        self.options = options
        self.encoder = Encoder(options.encoder, image_size=options.image.size, imagenet=imagenet)
        self.decoder = self._decoder()
        # Schuster and Paliwal 1997, "Bidirectional Recurrent Neural Networks": two networks of one shape, one for each
        # direction. A caption that is still being written has no right-hand side, so here the second one judges whole
        # captions only, and both are models of their own (Liu et al. 2016, "Agreement on Target-bidirectional Neural
        # Machine Translation").
        self.reverse = self._decoder() if options.reverse else None

    def _decoder(self) -> Decoder:
        options = self.options
        return Decoder(options.decoder, channels=self.encoder.channels, vocabulary_size=options.vocabulary_size)

    @property
    def vision(self) -> Vision:
        """The encoder, with the options by which pictures are made ready for it."""
        return Vision(self.options.image, self.encoder)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W), uint8, fitted by `pictures.look` -> features (B, R, C)."""
        return self.vision.encode(pixels)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pixels (B, 3, H, W) uint8, tokens (B, K, T) -> logits (B, K, T, V), attention (B, K, T, R) or None."""
        return self.decoder(self.encode(pixels), tokens)
