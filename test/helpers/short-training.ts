/** For tests that calibrate and look at promises: heads go over their rows a few times, where calibrations of few items do 40 times. */
import { Chain } from 'lib/calibrate/fit/chain.js';

const FEW_EPOCHS = 10;

const { train } = Chain.prototype;
jest.spyOn(Chain.prototype, 'train').mockImplementation(function (this: Chain, data, epochs, from, to) {
  return train.call(this, data, Math.min(epochs, FEW_EPOCHS), from, to);
});
