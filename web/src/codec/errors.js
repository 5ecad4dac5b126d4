/** What a person can act on: each message is one line. */
export class CodecError extends Error {}

/** Damaged, or something else. */
export class FormatError extends CodecError {}

/** Of a newer format. */
export class VersionError extends FormatError {}

/** Reading it would cost more than it may. */
export class CostError extends FormatError {}

/** Made with a model that is not there. */
export class ModelMismatchError extends CodecError {}
