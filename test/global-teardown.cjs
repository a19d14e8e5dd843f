module.exports = () => globalThis.removeTemporary();
